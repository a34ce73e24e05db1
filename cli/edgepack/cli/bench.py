"""`edgepack bench run`."""

import argparse
import sys
from pathlib import Path

from edgepack.bench import BenchReport, bench_bundle, render_text
from edgepack.bench.run import DEFAULT_CALLS, DEFAULT_SECONDS, DEFAULT_TIMEOUT_S
from edgepack.cli.commands import add_verbose
from edgepack.cli.console import print_json, progress
from edgepack.cli.errors import UsageError
from edgepack.cli.exit_codes import epilog

_MISSED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of bench."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    run_parser = verbs.add_parser(
        "run",
        help="latency, size, load time, memory and parity of each variant",
        description="Measure each variant in a process of its own. Ends with 6 if the golden "
        "samples do not come out as the contract demands.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run_parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")
    run_parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="rows to score besides the golden samples: CSV, Parquet, npz, npy, safetensors, or a "
        "folder of images or WAV files (default: golden samples only)",
    )
    run_parser.add_argument(
        "--label", metavar="COLUMN", help="column of the truth in it (default: y of an npz)"
    )
    run_parser.add_argument(
        "--variant", action="append", default=[], help="measure this one; may be given again"
    )
    run_parser.add_argument(
        "--threads", type=int, default=1, help="threads of the engine (default: %(default)s)"
    )
    run_parser.add_argument(
        "--calls",
        type=int,
        default=DEFAULT_CALLS,
        help="timed calls of a variant at the most (default: %(default)s)",
    )
    run_parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        help="time for them at the most, in seconds (default: %(default)g)",
    )
    run_parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="time for all of one variant (default: %(default)g)",
    )
    run_parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_verbose(run_parser)


def run(args: argparse.Namespace) -> int:
    """Measure a bundle."""
    numbers = (args.threads, args.calls, args.seconds, args.timeout)
    if min(numbers) <= 0:
        raise UsageError(f"--threads, --calls, --seconds and --timeout must be > 0, got {numbers}")
    report = _measured(args)
    if args.json:
        print_json(report.to_json())
    elif sys.stdout.isatty():
        _print_rich(report)
    else:
        print(render_text(report))
    return 0 if all(variant.passed for variant in report.variants) else _MISSED


def _measured(args: argparse.Namespace) -> BenchReport:
    with progress(quiet=args.json) as bars:
        task = None if bars is None else bars.add_task("measure", total=None)

        def show(variant: str) -> None:
            if bars is not None and task is not None:
                bars.update(task, description=f"measure {variant}")

        return bench_bundle(
            args.bundle,
            data=args.data,
            label=args.label,
            variants=tuple(args.variant),
            threads=args.threads,
            calls=args.calls,
            seconds=args.seconds,
            timeout_s=args.timeout,
            progress=show,
        )


def _print_rich(report: BenchReport) -> None:
    try:
        from rich.console import Console

        from edgepack.bench import rich_table

        Console().print(rich_table(report))
    except ModuleNotFoundError:  # rich is an extra; the plain table says the same
        print(render_text(report))
