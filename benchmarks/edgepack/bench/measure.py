"""Measures one variant, in a process that has done nothing else.

`python -m edgepack.bench.measure` reads a MeasureRequest as JSON from standard input and writes
a VariantReport, or an error, as JSON to standard output. The order matters: memory is read
before the data file is, so that it is the model's and not the data's.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic_ns, perf_counter_ns
from typing import Final

import numpy as np

from edgepack.bench.machine import peak_memory_bytes, resident_bytes
from edgepack.bench.report import Accuracy, Latency, VariantReport
from edgepack.bench.request import MeasureRequest
from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task
from edgepack.monitor import wilson_interval
from edgepack.runtime import (
    Model,
    SessionOptions,
    choose_variant,
    load,
    parse_golden,
    run_selftest,
)
from edgepack.runtime.dataset_inputs import read_for_model, to_inputs
from edgepack.runtime.engines import engine_named
from edgepack.runtime.figures import r2, rows_agreeing, same_labels
from edgepack.runtime.labels import numbered
from edgepack.runtime.parity import labels_of, several_labels_of
from edgepack.runtime.tensors import Array
from edgepack.trust import strict_json
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import EdgepackError
from edgepack.trust.strict_json import JsonValue

MAX_REQUEST_BYTES: Final = 1 << 16
LEAST_CALLS: Final = 50
_WARM_UP_CALLS: Final = 20
_BATCH_ROWS: Final = 1024


def main() -> int:
    """Measure what standard input asks for."""
    data = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
    document = strict_json.parse(data, what="request", max_bytes=MAX_REQUEST_BYTES)
    request = decode(MeasureRequest, document, what="request", ignore_unknown=False)
    try:
        answer = measure(request)
        code = 0
    except EdgepackError as exc:
        answer = {"error": str(exc)}
        code = exc.exit_code
    sys.stdout.buffer.write(strict_json.render(answer))
    return code


def measure(request: MeasureRequest) -> dict[str, JsonValue]:
    """Measure one variant; the process should be new.

    Returns:
        A VariantReport as plain JSON values.

    Raises:
        EdgepackError: The bundle, the variant, the engine or the data cannot be used.
    """
    path = Path(request.bundle)
    contract = open_bundle(path).contract
    chosen = choose_variant(contract, request.variant)
    engine = engine_named(chosen.engine.engine)
    engine.check(chosen)
    engine.prepare()
    before_bytes = resident_bytes()
    begun_ns = monotonic_ns()
    bundle = open_bundle(path)
    options = SessionOptions(threads=request.threads)
    with load(bundle, variant=request.variant, options=options) as model:
        load_ms = (monotonic_ns() - begun_ns) / 1e6
        golden = parse_golden(bundle.read(contract.golden), contract)
        model.predict({name: array[:1] for name, array in golden.inputs.items()})
        start_ms = (monotonic_ns() - request.started_ns) / 1e6
        latency = time_singles(
            model, golden.inputs, golden.rows, calls=request.calls, seconds=request.seconds
        )
        peak_bytes, after_bytes = peak_memory_bytes(), resident_bytes()
        test = run_selftest(model, golden)
        on_data = None
        if request.data is not None:
            on_data = score(model, Path(request.data), request.label)
    added_bytes = None
    if before_bytes is not None and after_bytes is not None:
        added_bytes = max(0, after_bytes - before_bytes)
    report = encode(
        VariantReport(
            variant=chosen.name,
            precision=chosen.precision,
            engine=" ".join(f"{name} {found}" for name, found in engine.versions().items()),
            size_bytes=chosen.size_bytes,
            start_ms=start_ms,
            load_ms=load_ms,
            peak_memory_bytes=peak_bytes,
            model_memory_bytes=added_bytes,
            latency=latency,
            passed=test.passed,
            reason=test.reason,
            metric=test.parity.metric,
            value=test.parity.value,
            bound=test.parity.bound,
            figures=test.parity.figures,
            on_data=on_data,
        )
    )
    assert isinstance(report, dict)
    return report


def time_singles(
    model: Model, inputs: Mapping[str, Array], rows: int, *, calls: int, seconds: float
) -> Latency:
    """Time `predict` on one sample after the other, round and round.

    Args:
        model: What to time.
        inputs: Samples, by the contract's names.
        rows: How many there are.
        calls: Largest number of timed calls.
        seconds: Largest time for them; at least 50 calls are made all the same.
    """
    samples = [
        {name: array[row : row + 1] for name, array in inputs.items()} for row in range(rows)
    ]
    for call in range(_WARM_UP_CALLS):
        model.predict(samples[call % rows])
    taken: list[int] = []
    deadline_ns = perf_counter_ns() + int(seconds * 1e9)
    while len(taken) < calls and (len(taken) < LEAST_CALLS or perf_counter_ns() < deadline_ns):
        sample = samples[len(taken) % rows]
        started_ns = perf_counter_ns()
        model.predict(sample)
        taken.append(perf_counter_ns() - started_ns)
    p50, p90, p99 = (np.quantile(taken, [0.5, 0.9, 0.99]) / 1e6).tolist()
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(np.mean(taken)) / 1e6,
        calls=len(taken),
    )


def score(model: Model, path: Path, label: str | None) -> Accuracy | None:
    """Compare the model's answers for a data file with its truth.

    None where it has none, and where it says nothing of the task: clusters have no right names.

    Raises:
        DatasetError: The file cannot be read or does not fit the model.
        EngineError: The engine failed.
    """
    contract = model.contract
    dataset = read_for_model(path, contract, label=label)
    inputs = to_inputs(dataset, contract)  # also without truth: data that does not fit is an error
    if dataset.truth is None:
        return None
    parts = [model.predict(batch) for batch in _batches(inputs, dataset.rows)]
    outputs = {
        spec.name: np.concatenate([p[spec.name] for p in parts]) for spec in contract.outputs
    }
    several = several_labels_of(contract.task, outputs)
    if several is not None and dataset.truth.shape == several.shape:
        truth = dataset.truth_like(several)
        right = int(rows_agreeing(dataset.truth if truth is None else truth, several).sum())
        return _accuracy(right, dataset.rows)
    if contract.task is Task.CLASSIFICATION or _tells_outliers(contract.task, dataset.truth):
        labels = labels_of(outputs, contract.class_names)
        truth = dataset.truth_like(labels)
        truth = numbered(dataset.truth if truth is None else truth, labels, contract.class_names)
        right = int(same_labels(truth, labels).sum())
        return _accuracy(right, dataset.rows)
    value = outputs[contract.outputs[0].name]
    if contract.task is not Task.REGRESSION or value.size != dataset.truth.size:
        return None
    number = dataset.truth.reshape(value.shape).astype(np.float64)
    mae = float(np.abs(number - value).mean())
    return Accuracy(rows=dataset.rows, r2=r2(number, value), mae=mae)


def _accuracy(right: int, rows: int) -> Accuracy:
    low, high = wilson_interval(right, rows)
    return Accuracy(rows=rows, accuracy=right / rows, accuracy_low=low, accuracy_high=high)


def _tells_outliers(task: Task, truth: Array) -> bool:
    """Whether a truth says 1 or -1, as outlier models do; one of classes means nothing to them."""
    return (
        task is Task.OUTLIER
        and truth.dtype.kind in "iuf"
        and truth.ndim == 1
        and bool(np.isin(truth, (-1, 1)).all())
    )


def _batches(inputs: Mapping[str, Array], rows: int) -> Iterator[dict[str, Array]]:
    for begin in range(0, rows, _BATCH_ROWS):
        yield {name: array[begin : begin + _BATCH_ROWS] for name, array in inputs.items()}


if __name__ == "__main__":
    sys.exit(main())
