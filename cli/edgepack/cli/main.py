"""`edgepack COMMAND …`: parses, runs one command, turns every failure into one line and a code."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgepack.cli.commands import COMMANDS, Command, add_verbose
from edgepack.cli.exit_codes import epilog

_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of ours."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message}\n  see: {self.prog} --help\n")
        raise SystemExit(2)


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"edgepack {version('edgepack')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments without the program's name; by default the process's own.

    Returns:
        The exit code; see `edgepack --help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = False
    try:
        parser = build_parser(arguments)
        args = parser.parse_args(arguments)
        verbose = args.verbose
        _configure_logging(verbose=verbose)
        code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as exc:  # argparse: --help, or a usage error that it has printed
        return exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        sys.stderr.write("\nedgepack: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:  # `edgepack … | head`: the reader has had enough
        _silence_stdout()
        return 0
    except Exception as exc:  # noqa: BLE001  (the one place where failures become exit codes)
        return _fail(exc, verbose=verbose)
    return code


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the command that the arguments name gets its options and its module."""
    parser = _Parser(
        prog="edgepack",
        description="Take a trained model to many small Linux devices, and watch it there.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks and a debug log")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for command in COMMANDS:
        _add(verbs, command, full=command.name == chosen)
    return parser


def _add(
    verbs: "argparse._SubParsersAction[_Parser]",
    command: Command,
    *,
    full: bool,
) -> None:
    parser = verbs.add_parser(
        command.name,
        help=command.summary,
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if not full:
        return
    add_arguments, run = command.load()
    parser.description = f"{command.summary[0].upper()}{command.summary[1:]}."
    add_arguments(parser)
    add_verbose(parser)
    parser.set_defaults(run=run)


def _configure_logging(*, verbose: bool) -> None:
    import logging

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="edgepack: %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not verbose:
        # What these have to say is in our own errors, or is for their developers.
        for name in ("amqtt", "asyncio", "mqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _fail(exc: Exception, *, verbose: bool) -> int:
    from edgepack.cli.console import safe
    from edgepack.cli.failures import explain

    if verbose:
        import traceback

        traceback.print_exc()
    failure = explain(exc)
    sys.stderr.write(f"edgepack: error: {safe(failure.message)}\n")
    if failure.hint:
        sys.stderr.write(f"  hint: {safe(failure.hint)}\n")
    return failure.code


def _silence_stdout() -> None:
    """Point stdout at nothing, or Python complains about the pipe while it exits."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file, in a test
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
