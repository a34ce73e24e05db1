"""Walks all estimators of scikit-learn through our export and compares the answers."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from coverage_models import Array, Fitted

from edgepack.bundle.contract import Datatype, TensorSpec, Tolerances
from edgepack.converter.errors import ConvertError
from edgepack.converter.sklearn_model.estimator import SklearnModel
from edgepack.converter.sources.source import Exported, ExportWish
from edgepack.runtime.errors import ParityError
from edgepack.runtime.parity import compare

_MOST_SPLITS = 40
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_ENGINE_ERRORS = (
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.RuntimeException,
    _STATE.InvalidGraph,
    _STATE.NotImplemented,
)
_DTYPES = {"fp32": np.float32, "fp64": np.float64}


@dataclass(frozen=True)
class Outcome:
    """What came of one precision: the largest difference, or why there is none."""

    difference: float | None
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """What came of one estimator."""

    name: str
    task: str
    fp32: Outcome
    fp64: Outcome


def walk_one(fitted: Fitted) -> Entry:
    """Convert one fitted model in both precisions and compare it with itself."""
    refused = Outcome(None, fitted.reason)
    if fitted.model is None or fitted.rows is None:
        return Entry(fitted.name, "not fitted", refused, refused)
    try:
        model = SklearnModel(fitted.model)
    except ConvertError as exc:
        refused = Outcome(None, str(exc))
        return Entry(fitted.name, "none", refused, refused)
    rows = np.concatenate([fitted.rows.check, near_splits(fitted.model, fitted.rows.check)])
    task = model.facts.task
    assert task is not None
    found = [_outcome(model, rows, precision) for precision in _DTYPES]
    return Entry(fitted.name, task.value, *found)


def near_splits(model: Any, rows: Array) -> Array:
    """Rows of which one value each is a tree's threshold, or the number next to it."""
    features = rows.shape[1]
    found_splits = set(_splits(model, features))
    # Infinite thresholds divide what is missing from what is not; a column beyond the rows' is of
    # a model that sees others.
    splits = sorted(item for item in found_splits if item[0] < features and np.isfinite(item[1]))
    if len(splits) > _MOST_SPLITS:
        splits = splits[:: len(splits) // _MOST_SPLITS]
    found = []
    for index, (feature, threshold) in enumerate(splits):
        narrow = np.float32(threshold)
        for value in (
            threshold,
            np.nextafter(threshold, -np.inf),
            np.nextafter(threshold, np.inf),
            narrow,
            np.nextafter(narrow, np.float32(-np.inf)),
            np.nextafter(narrow, np.float32(np.inf)),
        ):
            row = rows[index % len(rows)].copy()
            row[feature] = value
            found.append(row)
    return np.array(found).reshape(-1, rows.shape[1])


def _splits(model: Any, features: int, depth: int = 0) -> Iterator[tuple[int, float]]:
    """Every (column, threshold) of the trees inside a model."""
    kind = type(model).__name__
    if depth > 6 or kind == "BaggingRegressor":
        return  # its trees number the columns that each was given
    if kind == "Tree":
        inner = model.children_left >= 0
        yield from zip(model.feature[inner].tolist(), model.threshold[inner].tolist(), strict=True)
    elif kind == "TreePredictor":
        inner = model.nodes[~model.nodes["is_leaf"].astype(bool)]
        yield from zip(inner["feature_idx"].tolist(), inner["num_threshold"].tolist(), strict=True)
    else:
        for item in _parts(model):
            yield from _splits(item, features, depth + 1)


def _parts(model: Any) -> list[Any]:
    if isinstance(model, np.ndarray):
        return list(model.ravel()) if model.dtype == np.object_ else []
    if isinstance(model, (list, tuple)):
        return list(model)
    fitted = getattr(model, "__dict__", {})
    return [item for key, item in fitted.items() if key.endswith("_") or key.startswith("_")]


def _outcome(model: SklearnModel, rows: Array, precision: str) -> Outcome:
    task = model.facts.task
    assert task is not None
    given = rows.astype(_DTYPES[precision])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = model.run(task, {"x": given.astype(np.float64)})
            spec = TensorSpec(
                name="x",
                datatype=Datatype.FP32 if precision == "fp32" else Datatype.FP64,
                shape=(-1, rows.shape[1]),
            )
            wish = ExportWish(
                task=task, inputs=(spec,), outputs=tuple(expected), precision=precision
            )
            got = _shaped(_run(model.export(wish), given), expected)
            if "probabilities" in expected:
                best = np.sort(expected["probabilities"], axis=1)
                if (best[:, -1] == best[:, -2]).any() and (expected["label"] != got["label"]).any():
                    got = _shaped(_run(model.export(_settled(wish)), given), expected)
            comparison = compare(
                task,
                expected,
                got,
                tolerances=Tolerances(),
                precision=precision,
                class_names=model.facts.class_names,
            )
        except (ConvertError, ParityError) as exc:
            return Outcome(None, str(exc))
        except _ENGINE_ERRORS as exc:
            return Outcome(None, "onnxruntime: " + " ".join(str(exc).split())[:100])
    if not comparison.passed:
        return Outcome(None, f"differs: {comparison.reason}")
    return Outcome(_difference(expected, got))


def _settled(wish: ExportWish) -> ExportWish:
    from dataclasses import replace

    return replace(wish, settle_ties=True)


def _run(exported: Exported, rows: Array) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        exported.data, options, providers=["CPUExecutionProvider"]
    )
    outputs = exported.facts.outputs
    found = session.run([item.tensor for item in outputs], {"x": rows})
    return {item.name: array for item, array in zip(outputs, found, strict=True)}


def _shaped(got: dict[str, Array], expected: dict[str, Array]) -> dict[str, Array]:
    """As the runtime gives them: (N, 1) where the contract says (N,)."""
    return {
        name: array.reshape(expected[name].shape) if array.size == expected[name].size else array
        for name, array in got.items()
    }


def _difference(expected: dict[str, Array], got: dict[str, Array]) -> float:
    """The largest of all outputs, relative to the output's largest value."""
    largest = 0.0
    for name, values in expected.items():
        if values.dtype.kind == "f":
            scale = max(1.0, float(np.nanmax(np.abs(values), initial=0.0)))
            gap = np.abs(values - got[name].astype(np.float64))
            largest = max(largest, float(np.nanmax(gap, initial=0.0)) / scale)
    return largest
