"""The `edgepack-agent` command: parses, runs a verb, turns a failure into a line and a code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgepack.agent.commands.table import VERBS, Verb
from edgepack.trust.errors import EdgepackError

DEFAULT_CONFIG = "/etc/edgepack/agent.toml"
_EPILOG = """exit codes:
  0 done   1 a defect of edgepack   2 usage or agent.toml   4 bad bundle   5 not trusted
  6 doctor: something fails   7 network   8 rejected or rolled back   9 disk   130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser(arguments).parse_args(arguments)
    try:
        code: int = args.run(args)
    except EdgepackError as exc:
        if args.verbose:
            import traceback

            traceback.print_exc()
        sys.stderr.write(f"edgepack-agent: error: {exc}\n")
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the verb that the arguments name gets its options and its module."""
    parser = argparse.ArgumentParser(
        prog="edgepack-agent",
        description="Install model bundles safely, run them, report over MQTT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for verb in VERBS:
        _add(verbs, verb, full=verb.name == chosen)
    return parser


def _add(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", verb: Verb, *, full: bool
) -> None:
    if not full:
        verbs.add_parser(verb.name, help=verb.summary)
        return
    add_arguments, run = verb.load()
    parser = verbs.add_parser(
        verb.name,
        help=verb.summary,
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="agent.toml (default: %(default)s)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="debug log, tracebacks")
    add_arguments(parser)
    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
