"""`edgepack broker`."""

import argparse

from edgepack.cli.console import note, print_json
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.fleet.broker import BrokerOptions, EmbeddedBroker, is_loopback, make_password, serve
from edgepack.fleet.broker.embedded import DEFAULT_PORT, DEFAULT_USER, LOOPBACK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of broker."""
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default=LOOPBACK,
        help="address to listen on; any but loopback makes a password (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="TCP port; 0 takes a free one and prints it (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON with host and port (and user and password) when ready",
    )


def run(args: argparse.Namespace) -> int:
    """Run a broker until it is told to stop."""
    if not 0 <= args.port <= 65_535:
        raise UsageError(f"--port must be 0 to 65535, got {args.port}")
    password = None if is_loopback(args.listen) else make_password()
    if password is not None:
        note(
            f"warning: everybody who can reach {args.listen} can try to connect, and without TLS "
            "can read along, the password too: for a trusted network only"
        )
    options = BrokerOptions(host=args.listen, port=args.port, password=password)

    def ready(broker: EmbeddedBroker) -> None:
        if args.json:
            who = {"username": options.username, "password": password} if password else {}
            print_json({"host": broker.host, "port": broker.port, **who})
            return
        print(f"broker on {broker.host} port {broker.port} (MQTT 3.1.1); Ctrl-C stops it")
        if password is not None:
            print(f"user {DEFAULT_USER}, password {password} (shown once, valid until it stops)")
        print("what it retains is gone when it stops", flush=True)

    run_async(serve(options, ready))
    return 0
