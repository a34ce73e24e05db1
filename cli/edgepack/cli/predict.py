"""`edgepack predict`: score a file with the same code on a workstation and on a device."""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.cli.console import note, print_json, progress
from edgepack.cli.errors import UsageError
from edgepack.cli.rows_out import csv_text, flat_columns, format_of, write_rows
from edgepack.runtime import Model, SessionOptions, load
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.dataset_inputs import arrange, read_for_model
from edgepack.trust import Root

DEFAULT_BATCH_ROWS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of predict."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="CSV, Parquet, npz, npy, safetensors, or a folder of images or WAV files",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=".parquet, .csv, .jsonl or .npz (default: CSV on standard output)",
    )
    parser.add_argument("--variant", help="which form of the model (default: its first)")
    parser.add_argument(
        "--batch",
        type=int,
        default=DEFAULT_BATCH_ROWS,
        metavar="ROWS",
        help="rows at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=SessionOptions().threads,
        help="threads of the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="verify the bundle's signature with this root.json first (default: do not)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object about the run (needs -o)"
    )


def run(args: argparse.Namespace) -> int:
    """Score a file."""
    if args.batch < 1 or args.threads < 1:
        raise UsageError(f"--batch and --threads must be >= 1, got {args.batch}, {args.threads}")
    if args.json and args.output is None:
        raise UsageError("--json needs -o FILE: without it standard output is the predictions")
    if args.output is not None:
        format_of(args.output)  # before any work is done
    root = None if args.root is None else Root.load(args.root)
    options = SessionOptions(threads=args.threads)
    with load(args.bundle, variant=args.variant, options=options, root=root) as model:
        dataset = read_for_model(args.data, model.contract)
        arranged = arrange(dataset, model.contract.inputs)
        for message in arranged.messages:
            note(message)
        start_s = time.perf_counter()
        batches = _batches(model, arranged.inputs, dataset, args.batch)
        if args.output is None:
            for number, columns in enumerate(batches):
                sys.stdout.write(csv_text(columns, header=number == 0))
            return 0
        with write_rows(args.output) as write:
            for columns in batches:
                write(columns)
        took_s = time.perf_counter() - start_s
        facts = {
            "rows": dataset.rows,
            "output": args.output,
            "model": model.contract.name,
            "version": model.contract.version,
            "variant": model.variant.name,
            "seconds": took_s,
        }
    if args.json:
        print_json(facts)
    else:
        print(f"{args.output}: {dataset.rows} rows in {took_s:.2f} s ({facts['variant']})")
    return 0


def _batches(
    model: Model, inputs: Mapping[str, NDArray[Any]], dataset: Dataset, batch_rows: int
) -> Iterator[dict[str, NDArray[Any]]]:
    rows = dataset.rows
    files = np.array(dataset.names, dtype=np.object_)  # of a folder, which row is which file
    with progress() as bars:
        task = None if bars is None else bars.add_task("predict", total=rows)
        for start in range(0, rows, batch_rows):
            batch = {name: array[start : start + batch_rows] for name, array in inputs.items()}
            columns = flat_columns(model.predict(batch), model.contract)
            named = {"file": files[start : start + batch_rows]} if len(files) else {}
            yield {**named, **columns}
            if bars is not None and task is not None:
                bars.update(task, completed=min(rows, start + batch_rows))
