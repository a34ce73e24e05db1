"""`edgepack wheelhouse`: sign the folder of wheels that `edgepack-agent upgrade` takes."""

import argparse
from pathlib import Path

from edgepack.bundle import signing_sequence
from edgepack.cli.commands import add_verbose
from edgepack.cli.config import add_keys_argument, add_root_argument, settings
from edgepack.cli.console import count, print_json, say
from edgepack.cli.errors import UsageError
from edgepack.trust import RELEASE, PrivateKey, Root
from edgepack.trust.generate import key_path
from edgepack.wire.wheelhouse import Wheelhouse, check_wheels, open_wheelhouse, sign_wheelhouse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of wheelhouse."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    sign = verbs.add_parser("sign", help="sign the wheels of a folder, with the release key")
    sign.add_argument("folder", type=Path, metavar="DIR", help="holds the wheels")
    sign.add_argument(
        "--requirement",
        action="append",
        default=[],
        metavar="SPEC",
        help="what a device installs of them, as pip takes it; again for more "
        "(default: edgepack, and the engines that the device has)",
    )
    sign.add_argument(
        "--sequence",
        type=int,
        metavar="SECONDS",
        help="signing time in seconds since 1970; keys that reach a threshold together use the "
        "same (default: $SOURCE_DATE_EPOCH, now)",
    )
    add_keys_argument(sign)
    verify = verbs.add_parser("verify", help="check the signature and every wheel")
    verify.add_argument("folder", type=Path, metavar="DIR", help="holds wheelhouse.json")
    add_root_argument(verify)
    for verb, run_verb in ((sign, _sign), (verify, _verify)):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        add_verbose(verb)
        verb.set_defaults(verb=run_verb)


def run(args: argparse.Namespace) -> int:
    """Run a verb."""
    code: int = args.verb(args)
    return code


def _sign(args: argparse.Namespace) -> int:
    if not args.folder.is_dir():
        raise UsageError(f"{args.folder} must be a folder of wheels")
    try:
        sequence = signing_sequence() if args.sequence is None else args.sequence
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    key = PrivateKey.load(key_path(settings(args).keys, RELEASE))
    house = sign_wheelhouse(
        args.folder, [key], sequence=sequence, requirements=tuple(args.requirement)
    )
    return _show(args, house, "signed")


def _verify(args: argparse.Namespace) -> int:
    house = open_wheelhouse(args.folder, Root.load(settings(args).root))
    check_wheels(args.folder, house)
    return _show(args, house, "is signed, and every wheel is the one that was")


def _show(args: argparse.Namespace, house: Wheelhouse, what: str) -> int:
    if args.json:
        print_json(house)
    else:
        wheels = count(len(house.wheels), "wheel")
        say(f"{args.folder}: edgepack {house.version}, {wheels}, sequence {house.sequence}, {what}")
    return 0
