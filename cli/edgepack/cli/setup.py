"""`edgepack setup`."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgepack.cli.config import (
    add_broker_arguments,
    add_keys_argument,
    add_root_argument,
    settings,
)
from edgepack.cli.console import count, note, print_json, print_table, size
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.trust import Root
from edgepack.trust.errors import EdgepackError
from edgepack.wire.new_agent_toml import DEFAULT_HTTP
from edgepack.wire.topics import DEFAULT_PREFIX, check_id, check_prefix

if TYPE_CHECKING:
    from edgepack.fleet.setup import HostOutcome, SetupOptions

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of setup."""
    parser.add_argument(
        "hosts", nargs="*", metavar="[USER@]HOST", help="where to; as root, or with sudo"
    )
    add_broker_arguments(parser)
    add_keys_argument(parser)
    add_root_argument(parser)
    _add_device(parser)
    _add_login(parser)
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        choices=("onnxruntime", "ai-edge-litert", "tflite-runtime"),
        help="an engine to install; again for more (default: onnxruntime, and on 32-bit ARM "
        "tflite-runtime)",
    )
    parser.add_argument(
        "--wheelhouse",
        type=Path,
        metavar="DIR",
        help="write wheels, configuration and install.sh there, for a stick "
        "(default: go to the hosts)",
    )
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="MACHINE:PYTHON[:GLIBC]",
        help="with --wheelhouse, for which machines, such as aarch64:3.11:2.36; again for more",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="ask the package index for newer versions (default: the wheels of last time)",
    )
    parser.add_argument(
        "--no-start", action="store_true", help="install only; needs no systemd there"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look, get wheels, and say what would be done"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=8,
        metavar="N",
        help="hosts at the same time (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="how long each may take to come online (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--id",
        metavar="ID",
        help="the device's id, for one host (default: its host name and a hash of its machine-id)",
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help=f'where it serves HTTP; "" for nowhere (default: {DEFAULT_HTTP} on a new device, as '
        "it is on another)",
    )
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a group of the devices; again for more",
    )
    parser.add_argument(
        "--username",
        metavar="USER",
        help="whom the broker knows (default: with a password, the device's id)",
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="its first line is the broker's password; {host} and {id} in the path stand for "
        "each device's; - asks for one (default: no password)",
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        help="who signs the broker's certificate, as PEM (default: the system's)",
    )
    parser.add_argument(
        "--cert-file",
        metavar="FILE",
        help="the device's certificate; {host}, {id} as above (default: none)",
    )
    parser.add_argument(
        "--key-file", metavar="FILE", help="its private key; {host}, {id} as above (default: none)"
    )


def _add_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, metavar="N", help="ssh's port (default: ssh's own)")
    parser.add_argument(
        "--identity", type=Path, metavar="FILE", help="ssh's private key (default: ssh's own)"
    )
    parser.add_argument(
        "--ssh-config", type=Path, metavar="FILE", help="ssh's configuration (default: ssh's own)"
    )
    parser.add_argument(
        "--sudo-password-file",
        metavar="FILE",
        help="its first line is what sudo is told where it asks; {host} in the path as above; - "
        "asks for one (default: sudo that asks is an error)",
    )


def run(args: argparse.Namespace) -> int:
    """Set hosts up, or write a stick."""
    from edgepack.fleet.setup.hosts import parse_hosts

    if bool(args.hosts) == (args.wheelhouse is not None):
        raise UsageError("name hosts, or --wheelhouse DIR with --platform")
    if args.platform and args.wheelhouse is None:
        raise UsageError("--platform goes with --wheelhouse; a host is looked at")
    if args.wheelhouse is not None:
        for option in ("dry_run", "port", "identity", "ssh_config", "sudo_password_file"):
            if getattr(args, option) not in (None, False):
                shown = option.replace("_", "-")
                raise UsageError(f"--{shown} is for hosts: --wheelhouse only writes its folder")
    if args.id is not None and (len(args.hosts) > 1 or args.wheelhouse is not None):
        raise UsageError("--id goes with one host: every device has its own")
    if not 1 <= args.jobs <= 256 or args.timeout <= 0:
        raise UsageError(f"--jobs must be 1 to 256, --timeout > 0, got {args.jobs}, {args.timeout}")
    hosts = parse_hosts(args.hosts)
    options = _options(args)
    if args.wheelhouse is not None:
        return _write_stick(args, options)
    from edgepack.fleet.setup import set_up

    def tell(host: str, text: str) -> None:
        if not args.json:
            note(f"{host}: {text}")

    outcomes = run_async(set_up(hosts, options, tell=tell))
    if args.json:
        print_json({"hosts": outcomes})
    else:
        _print(outcomes)
    return next((one.exit_code for one in outcomes if one.exit_code), 0)


def _write_stick(args: argparse.Namespace, options: "SetupOptions") -> int:
    from edgepack.fleet.setup import write_stick
    from edgepack.fleet.setup.stick import parse_platform

    if not args.platform:
        raise UsageError("--wheelhouse needs --platform, such as --platform aarch64:3.11")
    platforms = [parse_platform(text, args.engine) for text in args.platform]
    stick = run_async(write_stick(args.wheelhouse, platforms, options))
    signed = _sign(args)
    if args.json:
        print_json({"stick": stick, "signed": signed})
        return 0
    print(f"{stick.folder}: {stick.release}, {count(stick.wheels, 'wheel')}, ", end="")
    print(f"{size(stick.size_bytes)}, {'signed' if signed else 'not signed'}")
    print(f"on the device, as root: sh {stick.folder.name}/install.sh")
    return 0


def _sign(args: argparse.Namespace) -> bool:
    """Sign the folder for `edgepack-agent upgrade`, where the release key is here."""
    from edgepack.bundle import signing_sequence
    from edgepack.trust import RELEASE, PrivateKey
    from edgepack.trust.generate import key_path
    from edgepack.wire.wheelhouse import sign_wheelhouse

    path = key_path(settings(args).keys, RELEASE)
    if not path.exists():
        return False
    sign_wheelhouse(args.wheelhouse, [PrivateKey.load(path)], sequence=signing_sequence())
    return True


def _options(args: argparse.Namespace) -> "SetupOptions":
    from edgepack.fleet.setup import SetupOptions
    from edgepack.fleet.setup.options import Login, Wanted
    from edgepack.fleet.setup.secret_files import SecretSource

    found = settings(args)
    asks = args.password_file == "-"  # noqa: S105 (the mark for "ask me")
    asks_sudo = args.sudo_password_file == "-"  # noqa: S105
    return SetupOptions(
        root=_root(found.root),
        cache=_cache(),
        wanted=Wanted(
            device=None if args.id is None else check_id(args.id, what="--id"),
            prefix=None if found.prefix == DEFAULT_PREFIX else check_prefix(found.prefix),
            tags=_tags(args.tag),
            broker=_broker(args.broker, found.broker),
            username=args.username,
            http=_http(args.http),
        ),
        secrets=SecretSource(
            password=_ask("the broker's password for these devices: ") if asks else None,
            password_file=None if asks else args.password_file,
            ca_file=args.ca_file,
            cert_file=args.cert_file,
            key_file=args.key_file,
            sudo_password=_ask("sudo's password on these devices: ") if asks_sudo else None,
            sudo_password_file=None if asks_sudo else args.sudo_password_file,
        ),
        login=Login(port=args.port, identity=args.identity, config=args.ssh_config),
        engines=tuple(dict.fromkeys(args.engine)),
        jobs=args.jobs,
        timeout_s=args.timeout,
        start=not args.no_start,
        dry_run=args.dry_run,
        refresh=args.refresh,
    )


def _root(path: Path) -> bytes:
    try:
        Root.load(path)
    except EdgepackError as exc:
        raise UsageError(f"--root must be the root.json of your keys: {exc}") from exc
    return path.read_bytes()


def _broker(typed: str | None, found: str) -> str:
    """The URL as devices need it: reachable from there, and without a password."""
    from edgepack.fleet import parse_broker_url

    url = parse_broker_url(found)
    if url.username or url.password:
        raise UsageError(
            "the broker's URL for devices must not hold a user or a password",
            hint="--username and --password-file",
        )
    if url.cafile or url.certfile or url.keyfile:
        raise UsageError(
            "the broker's URL for devices must not name files",
            hint="--ca-file, --cert-file and --key-file",
        )
    if typed is None and url.host in _LOOPBACK:
        raise UsageError(
            f"{found} is this machine for itself, not for a device",
            hint="--broker mqtt://HOST, as devices reach it",
        )
    return found if url.path is not None else urlsplit(found)._replace(path="").geturl()


def _http(text: str | None) -> str | None:
    from edgepack.agent.config.http import listen_address
    from edgepack.agent.errors import ConfigError

    try:
        if text:
            listen_address(text)
    except ConfigError as exc:
        raise UsageError(f"--http must be HOST:PORT, got {text!r}") from exc
    return text


def _tags(texts: Sequence[str]) -> dict[str, str]:
    tags = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--tag must be KEY=VALUE, got {text[:80]!r}")
        tags[key] = value
    return tags


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return getpass.getpass(question)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edgepack" / "setup"


def _print(outcomes: Sequence["HostOutcome"]) -> None:
    rows = []
    for one in outcomes:
        state = {True: "online", False: "offline", None: ""}[one.online]
        what = one.error or "; ".join(one.notes)
        rows.append([one.host, one.result, one.device or "", state, one.release or "", what])
    print_table(["host", "result", "device", "broker", "release", "notes"], rows)
    for hint in dict.fromkeys(one.hint for one in outcomes if one.hint):
        note(f"  hint: {hint}")
    failed = sum(one.exit_code != 0 for one in outcomes)
    if failed:
        note(f"{failed} of {count(len(outcomes), 'host')} failed")
