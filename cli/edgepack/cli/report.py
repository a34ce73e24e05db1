"""`edgepack report`."""

import argparse
from pathlib import Path

from edgepack.bench import bench_bundle
from edgepack.bench.page import render_page
from edgepack.bundle import open_bundle
from edgepack.bundle.atomic_file import write_atomically
from edgepack.cli.console import progress, say

_CALLS = 500
_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of report."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: the bundle's name with .html, here)",
    )
    parser.add_argument(
        "--no-latency", action="store_true", help="leave out this machine's latency"
    )


def run(args: argparse.Namespace) -> int:
    """Render a bundle's evidence as one HTML file."""
    bundle = open_bundle(args.bundle)
    output = args.output or Path(args.bundle.name).with_suffix(".html")
    bench = None
    if not args.no_latency:
        with progress(quiet=False) as bars:
            task = None if bars is None else bars.add_task("latency", total=None)

            def show(variant: str) -> None:
                if bars is not None and task is not None:
                    bars.update(task, description=f"latency of {variant}")

            bench = bench_bundle(args.bundle, calls=_CALLS, seconds=_SECONDS, progress=show)
    page = render_page(bundle, bench).encode()
    with write_atomically(output) as file:
        file.write(page)
    say(f"{output}  {output.stat().st_size // 1024} KiB, opens offline")
    return 0
