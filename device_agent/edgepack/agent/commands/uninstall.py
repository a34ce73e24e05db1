"""`edgepack-agent uninstall`: off this device, and on request off the broker, without a trace."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgepack.agent.commands.asking import complain
from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.errors import StoreError
from edgepack.agent.install.spare import DATABASE
from edgepack.agent.removal.files import delete, delete_user, doomed, has_user, runs
from edgepack.agent.removal.retained import Cleared, clear, remembered_topics
from edgepack.agent.upgrade.service import Systemd, service_of
from edgepack.wire.installation import USER, Installation, release_of

_STOPS_S = 40.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of uninstall."""
    parser.add_argument(
        "--purge",
        action="store_true",
        help="also /etc/edgepack, and every topic that the broker retains of this device",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="with --purge: leave what the broker retains, where it cannot be reached",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--prefix",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="where opt/edgepack and the rest lie (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Stop, clear, delete, and say what is left."""
    config = read_config(args.config)
    installation = Installation(args.prefix)
    paths = doomed(installation, config, purge=args.purge)
    clears = args.purge and not args.offline and config.broker.url is not None
    if not args.yes and not _agreed(config, paths, clears=clears):
        complain("nothing was done; --yes does not ask")
        return 2
    service = service_of(installation)
    if service is not None:
        service.disable()
    _wait_stopped(config)
    cleared = Cleared(topics=(), left=())
    if clears:
        known = remembered_topics(config, config.state_dir / DATABASE)
        cleared = clear(config, known)
        print(f"cleared on the broker: {len(cleared.topics)} topics of {config.device}")
    for path in paths:
        delete(path)
        print(f"deleted: {path}")
    _finish(installation, service)
    for line in _left(args, config, installation, cleared):
        print(f"left: {line}")
    return 0


def _agreed(config: AgentConfig, paths: Sequence[Path], *, clears: bool) -> bool:
    """Ask a person; without one the answer is no."""
    for path in paths:
        sys.stderr.write(f"will be deleted: {path}\n")
    if clears:
        sys.stderr.write(f"will be cleared: what the broker retains of {config.device}\n")
    if not sys.stdin.isatty():
        return False
    sys.stderr.write("models, history and the device's key go with it. Type the device's id: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == config.device


def _wait_stopped(config: AgentConfig) -> None:
    """An agent that still runs would write everything anew.

    Raises:
        StoreError: It does not stop.
    """
    deadline = time.monotonic() + _STOPS_S
    while runs(config):
        if time.monotonic() > deadline:
            raise StoreError(f"an agent still runs on {config.state_dir}: stop it first")
        time.sleep(0.2)


def _finish(installation: Installation, service: Systemd | None) -> None:
    if service is not None:
        service.reload()
    if has_user(installation) and delete_user():
        print(f"deleted: user {USER}")


def _left(
    args: argparse.Namespace, config: AgentConfig, installation: Installation, cleared: Cleared
) -> list[str]:
    """What still tells of this device, a line each."""
    left = []
    if installation.etc.exists():
        left.append(f"{installation.etc} (--purge deletes it)")
    elif args.config.exists():
        left.append(f"{args.config}, and what it names")
    if not release_of(Path(sys.prefix)):
        left.append(f"the program in {sys.prefix} (pip uninstall edgepack)")
    if config.broker.url is not None and not args.purge:
        left.append(f"what the broker retains of {config.device} (--purge clears it)")
    elif config.broker.url is not None and args.offline:
        left.append(f"what the broker retains of {config.device}: it was not asked")
    left += [
        f"{topic} on the broker, which this device may not clear; an operator may"
        for topic in cleared.left
    ]
    if config.broker.url is not None and args.purge and not args.offline and not cleared.left:
        left.append("what the broker does not let this device see, if there is anything")
    return left
