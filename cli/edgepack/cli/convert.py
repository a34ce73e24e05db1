"""`edgepack convert`."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack.bundle.contract import Task, Tolerances
from edgepack.cli.config import add_keys_argument, settings
from edgepack.cli.console import print_json, print_table, progress, say, size
from edgepack.cli.parity_text import figures, verdict
from edgepack.converter import ConvertReport, ConvertRequest, Precision, Progress, convert
from edgepack.converter.report import VariantReport
from edgepack.converter.request import FORMATS, ProgressCallback
from edgepack.converter.search.cache import default_folder

_DEFAULTS = Tolerances()
_TIMEOUT_S = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of convert."""
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="model file or folder of scikit-learn, XGBoost, LightGBM, CatBoost, PyTorch, Keras, "
        "TensorFlow, MLflow, ONNX or TFLite; its content tells which",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="at least 64 real rows: CSV, Parquet, npz, npy or safetensors, or a folder of "
        "images or WAV files with one subfolder a class",
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="column or array of the true answers, a,b for several (default: y, label or target of "
        "an npz)",
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
        "--recipe",
        type=Path,
        metavar="FILE",
        help="TOML file with preprocessing and settings, which other options override "
        "(default: none)",
    )
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        metavar="FORMAT",
        help="onnx, tflite or both (default: both)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=[precision.value for precision in Precision],
        metavar="PRECISION",
        help="auto searches for what is smaller and good enough; fp32, fp16, int8 and int8-dynamic "
        "pin it down, and what is named must be met (default: auto)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="FRACTION",
        help="largest loss of a quantized variant's metric, 0.01 is one point of accuracy "
        f"(default: {_DEFAULTS.max_drop:g})",
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let the model file run whatever code it holds: only for files of your own",
    )
    parser.add_argument(
        "--model-factory",
        metavar="MODULE:CALLABLE",
        help="makes the PyTorch model whose weights MODEL holds; the module is looked for in the "
        "current folder first (default: none)",
    )
    parser.add_argument(
        "--input-shape",
        type=_shape,
        action="append",
        default=[],
        metavar="N,N,…",
        help="shape of an input with its batch, where neither model nor data tell; once an input",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="candidates tried at once (default: one a core)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help="how long one step (loading, an export, a candidate) may take; the second format gets "
        f"a third of it and is left out otherwise (default: {_TIMEOUT_S:g})",
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="take nothing from earlier conversions"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle of that name")
    parser.add_argument("--license-file", type=Path, metavar="FILE", help="the model's licence")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Convert a model."""
    if threading.current_thread() is threading.main_thread():
        # A kill ends it as Ctrl-C does: children and temporary files go first.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = settings(args)
    request = ConvertRequest(
        model=args.model,
        data=args.data,
        label=args.label,
        output=args.output,
        name=args.name,
        version=args.version,
        task=None if args.task is None else Task(args.task),
        precision=tuple(Precision(name) for name in args.precision) if args.precision else None,
        formats=tuple(args.format or ()),
        recipe=args.recipe,
        model_factory=args.model_factory,
        input_shapes=tuple(args.input_shape),
        cache=None if args.no_cache else default_folder(),
        workers=args.jobs,
        timeout_s=args.timeout,
        max_drop=args.max_drop,
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


def _shape(text: str) -> tuple[int, ...]:
    """A shape from "1,128,9"."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers with commas, got {text!r}"
        ) from exc
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"sizes must be at least 1, got {text!r}")
    return shape


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
    if parity is not None and variant.kept:
        parts += [figures(parity)] if variant.reason else [verdict(parity), figures(parity)]
    return (
        variant.name,
        "-" if variant.size_bytes is None else size(variant.size_bytes),
        "kept" if variant.kept else "LEFT OUT",
        "; ".join(part for part in parts if part),
    )
