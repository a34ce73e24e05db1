"""`edgepack convert`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgepack.bundle.contract import Task, Tolerances
from edgepack.cli.config import add_keys_argument, settings
from edgepack.cli.console import print_json, print_table, progress, say, size
from edgepack.cli.parity_text import figures, verdict
from edgepack.converter import ConvertReport, ConvertRequest, Precision, Progress, convert
from edgepack.converter.report import VariantReport
from edgepack.converter.request import ProgressCallback

_DEFAULTS = Tolerances()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of convert."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help=".joblib, .pkl, .skops (scikit-learn) or .onnx"
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="at least 64 real rows: CSV, Parquet, npz, npy or safetensors",
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="column or array of the true answers (default: y, label or target of an npz)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for NAME-VERSION.edgepack (default: here)",
    )
    parser.add_argument("--name", help="the model's name (default: the file's stem)")
    parser.add_argument(
        "--version", help="SemVer (default: the next patch in the output folder, or 0.1.0)"
    )
    add_keys_argument(parser)
    parser.add_argument(
        "--task",
        choices=[task.value for task in Task],
        help="what the model is for (default: model and data tell)",
    )
    parser.add_argument(
        "--precision",
        choices=[precision.value for precision in Precision],
        default=Precision.AUTO.value,
        help="auto tries int8 where there is something to quantize (default: %(default)s)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=_DEFAULTS.max_drop,
        metavar="FRACTION",
        help="largest loss of a quantized variant's metric, 0.01 is one point of accuracy "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let the model file run whatever code it holds: only for files of your own",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle of that name")
    parser.add_argument("--license-file", type=Path, metavar="FILE", help="the model's licence")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Convert a model."""
    found = settings(args)
    request = ConvertRequest(
        model=args.model,
        data=args.data,
        label=args.label,
        output=args.output,
        name=args.name,
        version=args.version,
        task=None if args.task is None else Task(args.task),
        precision=Precision(args.precision),
        tolerances=replace(_DEFAULTS, max_drop=args.max_drop),
        keys=found.keys if found.named_keys else None,
        trust_pickle=args.trust_pickle,
        overwrite=args.overwrite,
        license_file=args.license_file,
        command=("edgepack", *sys.argv[1:]),
    )
    with _stages(quiet=args.json) as on_progress:
        report = convert(request, on_progress)
    if args.json:
        print_json(report)
    else:
        _print(report)
    return 0


@contextmanager
def _stages(*, quiet: bool) -> Iterator[ProgressCallback]:
    with progress(quiet=quiet) as bars:
        task = None if bars is None else bars.add_task("read the model")

        def show(step: Progress) -> None:
            if bars is not None and task is not None:
                text = step.message or step.stage.value
                bars.update(task, description=text, completed=step.step - 1, total=step.steps)

        yield show


def _print(report: ConvertReport) -> None:
    say(f"{report.source}, {report.task.value}")
    rows = report.rows
    say(
        f"{rows.total} rows: {rows.calibration} for calibration, {rows.held_out} compared with "
        f"the original, {rows.golden} of them packed for the self-test"
    )
    print()
    head = ("VARIANT", "SIZE", "", "PARITY")
    print_table(head, [_variant(variant) for variant in report.variants])
    print()
    for message in report.messages:
        say(message)
    say(f"{report.path}  {size(report.size_bytes)}, signed by {report.key_id[:12]}…")
    say(report.digest)


def _variant(variant: VariantReport) -> tuple[str, ...]:
    parity = variant.parity
    parts = [variant.reason or ""]
    if parity is not None:
        parts += [verdict(parity), figures(parity)]
    return (
        variant.name,
        "-" if variant.size_bytes is None else size(variant.size_bytes),
        "kept" if variant.kept else "LEFT OUT",
        "; ".join(part for part in parts if part),
    )
