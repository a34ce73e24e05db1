"""`edgepack conformance`."""

import argparse
from collections import Counter
from pathlib import Path

from edgepack.cli.console import print_json, safe
from edgepack.fleet.conformance import Outcome, Peer, Result, check
from edgepack.fleet.errors import TargetError
from edgepack.trust.decode import encode

_BROKEN = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of conformance."""
    parser.add_argument("url", metavar="URL", help="http(s)://HOST:PORT or unix:PATH")
    parser.add_argument("--model", required=True, metavar="NAME", help="a model that it serves")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="first line: bearer token (default: none)"
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="who signs the server (default: the system's)"
    )
    parser.add_argument(
        "--tensorflow", action="store_true", help="check TensorFlow Serving's REST, too"
    )
    parser.add_argument(
        "--text",
        default="a",
        metavar="WORD",
        help="what inputs of text are given, for models that know only some words "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Ask about each rule; 6 if one is broken."""
    token = None if args.token_file is None else _token(args.token_file)
    found: Counter[Outcome] = Counter()
    with Peer(args.url, token=token, ca_file=args.ca_file) as peer:
        for result in check(peer, args.model, tensorflow=args.tensorflow, text=args.text):
            found[result.outcome] += 1
            if args.json:
                print_json(encode(result))
            else:
                print("\n".join(_lines(result)), flush=True)
    if not args.json:
        counts = ", ".join(f"{found[outcome]} {outcome}" for outcome in Outcome)
        print(counts)
    return _BROKEN if found[Outcome.FAIL] else 0


def _lines(result: Result) -> list[str]:
    lines = [f"{result.outcome.upper():<4}  {result.name:<18} {result.says}  [{result.source}]"]
    if result.detail:
        lines.append(f"      {safe(result.detail)}")
    return lines


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise TargetError(f"token_file {path} cannot be read") from exc
