"""`edgepack-agent upgrade`, and what it and systemd call besides: `settle`, `selfcheck`."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from edgepack.agent.commands.asking import add_json, complain
from edgepack.agent.config import read_config
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade.place import Place
from edgepack.wire.installation import Installation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of upgrade."""
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="WHEELHOUSE",
        help="folder of wheels with wheelhouse.json",
    )
    parser.add_argument(
        "--release",
        metavar="NAME",
        help="instead of a folder, a release that `edgepack setup` has put there",
    )
    parser.add_argument(
        "--older",
        action="store_true",
        help="take a wheelhouse that was signed before the one that runs",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="time in which the new release must do well, in seconds (default: %(default).0f)",
    )
    parser.add_argument(
        "--steady",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for how long it must do well without a break, in seconds (default: %(default).0f)",
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="only make, check and switch; whoever runs the agent restarts it, and nobody watches",
    )
    _add_prefix(parser)
    add_json(parser)


def add_settle(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of settle."""
    _add_prefix(parser)


def add_selfcheck(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of selfcheck."""
    parser.add_argument(
        "--scratch", type=Path, required=True, metavar="DIR", help="empty, for copies"
    )


def run(args: argparse.Namespace) -> int:
    """Upgrade."""
    if (args.folder is None) == (args.release is None):
        complain("name either a WHEELHOUSE or --release NAME")
        return 2
    from edgepack.agent.upgrade.service import service_of
    from edgepack.agent.upgrade.upgrade import Patience, Upgrader

    config = read_config(args.config)
    place = Place(Installation(args.prefix))
    place.current()  # says so where this agent was installed in another way
    if not os.access(place.installation.base, os.W_OK):
        raise UpgradeError(f"{place.installation.base} cannot be written: call it as root")
    service = None if args.no_restart else service_of(place.installation)
    if service is None and not args.no_restart:
        raise UpgradeError(
            "the agent is no systemd service here, so nobody could watch the new one; "
            "--no-restart only makes, checks and switches"
        )
    upgrader = Upgrader(
        place,
        config,
        args.config.absolute(),
        service,
        tell=_tell,
        patience=Patience(timeout_s=args.wait, steady_s=args.steady),
    )
    _take_no_hangup()
    with place.alone() as alone:
        if not alone:
            raise UpgradeError("another upgrade is under way")
        if args.folder is not None:
            done = upgrader.run(args.folder, older=args.older)
        else:
            done = upgrader.adopt(args.release)
    if args.json:
        print(json.dumps({"old": done.old, "new": done.new, "watched": done.watched}))
    elif done.old == done.new:
        print(f"{done.new} runs already")
    elif done.watched:
        print(f"{done.new} runs, and does well ({done.old} is kept)")
    else:
        print(f"{done.new} is what starts next: restart the agent ({done.old} is kept)")
    return 0


def run_settle(args: argparse.Namespace) -> int:
    """Settle an interrupted upgrade; systemd calls it before every start."""
    from edgepack.agent.upgrade.upgrade import settle

    place = Place(Installation(args.prefix))
    with place.alone() as alone:
        if alone and (said := settle(place, read_config(args.config).state_dir)):
            _tell(said)
    return 0


def run_selfcheck(args: argparse.Namespace) -> int:
    """Check that this version can take over this device's state."""
    from importlib.metadata import version

    import edgepack.agent.compose
    import edgepack.agent.install.installing  # noqa: F401 (whether all of it is there)
    from edgepack.agent.upgrade.selfcheck import check_here

    passed = check_here(read_config(args.config), args.scratch)
    print(
        json.dumps(
            {
                "version": version("edgepack"),
                "models": passed.models,
                "changes_state": passed.changes_state,
            }
        )
    )
    return 0


def _add_prefix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prefix",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="where opt/edgepack and the rest lie (default: %(default)s)",
    )


def _tell(line: str) -> None:
    sys.stderr.write(f"edgepack-agent: {line}\n")
    sys.stderr.flush()


def _take_no_hangup() -> None:
    """A connection that breaks does not end an upgrade; a request to stop takes it back."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
