"""Runs a written file on LiteRT and compares it with the ONNX file on onnxruntime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.tflite_writer.labels import LargestOf, label_of, near_ties
from edgepack.runtime.tensors import Array

# Of the largest number that an output holds: sums of float32 in another order differ by that.
_RTOL, _ATOL = 1e-4, 1e-4


def onnx_answers(
    data: bytes, feeds: Mapping[str, Array], wanted: Sequence[str], batch: int | None
) -> dict[str, Array]:
    """What the ONNX file answers: output → rows."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return _in_batches(
            lambda part: dict(zip(wanted, session.run(list(wanted), part), strict=True)),
            feeds,
            batch,
        )
    except Exception as exc:
        raise UnsupportedModelError(f"onnxruntime refuses the model: {one_line(exc)}") from exc


def tflite_answers(data: bytes, feeds: Mapping[str, Array], batch: int | None) -> dict[str, Array]:
    """What a TFLite file answers on LiteRT: output → rows.

    Raises:
        UnsupportedModelError: LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        places = {item["name"]: item for item in interpreter.get_input_details()}
        outputs = {item["name"]: item["index"] for item in interpreter.get_output_details()}

        def run(part: dict[str, Array]) -> dict[str, Array]:
            for name, values in part.items():
                interpreter.resize_tensor_input(places[name]["index"], values.shape)
            interpreter.allocate_tensors()
            for name, values in part.items():
                interpreter.set_tensor(
                    places[name]["index"], np.ascontiguousarray(values, places[name]["dtype"])
                )
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

        return _in_batches(run, feeds, batch)
    except (RuntimeError, ValueError) as exc:
        raise UnsupportedModelError(
            f"LiteRT refuses the file that the TFLite writer made: {one_line(exc)}"
        ) from exc


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """What one output must be.

    Attributes:
        name: The contract's.
        tensor: Of the TFLite file.
        answers: Of the ONNX file, (rows, …).
        rule: How the output comes of the tensor, if it is a derived label.
    """

    name: str
    tensor: str
    answers: Array
    rule: LargestOf | None = None


def check_file(
    data: bytes, rows: Mapping[str, Array], batch: int | None, outputs: Sequence[Expected]
) -> None:
    """Run a file on all rows and, where their number is free, on one alone.

    Raises:
        UnsupportedModelError: LiteRT refuses it, or it answers otherwise.
    """
    sets = [rows]
    if batch is None:
        sets.append({name: values[:1] for name, values in rows.items()})
    for given in sets:
        count = len(next(iter(given.values())))
        answers = tflite_answers(data, given, batch)
        for item in outputs:
            right, answer = item.answers[:count], answers[item.tensor]
            if item.rule is None:
                compare(item.name, right, answer)
            elif not label_fits(item.rule, right, answer):
                derived = label_of(item.rule.classes, answer).astype(str)
                wrong = int(np.sum(derived != right.astype(str)))
                raise UnsupportedModelError(
                    f"the TFLite writer's file gives another label in {wrong} of {count} rows"
                )


def compare(name: str, expected: Array, actual: Array) -> None:
    """Compare an output.

    Raises:
        UnsupportedModelError: They differ by more than float32 arithmetic explains.
    """
    if expected.shape != actual.shape and expected.size == actual.size == len(actual):
        actual = actual.reshape(expected.shape)
    if expected.shape != actual.shape:
        raise UnsupportedModelError(
            f"the TFLite writer's file answers {name!r} with the shape {list(actual.shape)} "
            f"instead of {list(expected.shape)}"
        )
    if expected.dtype.kind != "f":
        wrong = int(np.sum(expected != actual))
        if wrong:
            raise UnsupportedModelError(
                f"the TFLite writer's file answers {name!r} otherwise in {wrong} of "
                f"{expected.size} values"
            )
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    if not np.allclose(actual, expected, rtol=_RTOL, atol=_ATOL * scale, equal_nan=True):
        with np.errstate(invalid="ignore"):
            worst = float(np.nanmax(np.abs(actual - expected)))
        raise UnsupportedModelError(
            f"the TFLite writer's file answers {name!r} otherwise, by up to {worst:.3g}"
        )


def label_fits(rule: LargestOf, label: Array, scores: Array) -> bool:
    """Whether the label is the class of the largest score wherever float32 can tell."""
    if scores.ndim != 2 or (rule.classes is not None and len(rule.classes) != scores.shape[1]):
        return False
    derived = label_of(rule.classes, scores)
    same = derived.astype(str) == label.reshape(-1).astype(str)
    return bool(np.all(same | near_ties(scores)))


def _in_batches(
    run: Callable[[dict[str, Array]], dict[str, Array]],
    feeds: Mapping[str, Array],
    batch: int | None,
) -> dict[str, Array]:
    rows = len(next(iter(feeds.values())))
    size = batch or rows
    parts = [
        run({name: values[start : start + size] for name, values in feeds.items()})
        for start in range(0, rows - rows % size, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
