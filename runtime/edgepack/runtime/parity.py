"""How far a variant is from the original model, judged by the model's task.

One comparison serves the converter (is this variant good enough?), the benchmark, and the
self-test on a device (is this processor running the same model?).

- Float variants (fp32, fp64) must give the same answer: every value within
  |got - expected| <= atol + rtol * |expected|, and every label the same. A label may differ only
  where the original itself had no opinion: the scores of its label and of the one that was got
  lie so near to each other that both can be within their tolerance and still change places.
  The metric is the fraction of rows for which all this holds.
- Other variants (int8, fp16) may round: the task's own metric has a bound.

Truth, where known, adds figures and never decides: whoever made the original accepted its errors.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from edgepack.bundle.contract import Parity, Task, Tolerances
from edgepack.runtime.errors import ParityError
from edgepack.runtime.figures import (
    agreement,
    largest_difference,
    largest_relative_error,
    nonfinite_mismatches,
    r2,
    rows_agreeing,
    same_labels,
    sqnr_db,
)
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass

FLOAT_PRECISIONS: Final = frozenset({"fp32", "fp64"})
_LABEL_TASKS: Final = frozenset({Task.CLASSIFICATION, Task.OUTLIER, Task.CLUSTERING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of comparing outputs.

    Attributes:
        parity: The metric, its bound and every figure, as the contract stores them.
        passed: Whether the metric is within its bound.
        reason: One line that says why not, or None.
    """

    parity: Parity
    passed: bool
    reason: str | None


def compare(
    task: Task,
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    *,
    tolerances: Tolerances,
    precision: str,
    truth: Array | None = None,
    class_names: Sequence[str] = (),
    bound: float | None = None,
) -> Comparison:
    """Compare a variant's outputs with the original model's.

    Args:
        task: What the model is for.
        expected: The original's outputs by contract name.
        got: The variant's, same names and shapes.
        tolerances: The contract's.
        precision: The variant's: "fp32", "int8", …
        truth: What was really so, (N,) or (N, T), if known.
        class_names: The contract's, in the order of the probability columns.
        bound: The worst metric to accept, instead of the one that the tolerances give (1 for
            float variants, 1 - max_drop for agreement and R², max_drop for relative error).

    Returns:
        The figures and the verdict. The metric is "within_tolerance" for float variants, else
        "agreement" (classification, outlier, clustering, several labels a row), "r2" (numbers) or
        "max_rel_error" (a model without float outputs).

    Raises:
        ParityError: Names, shapes or kinds differ, or there are no rows.
    """
    rows = _check(expected, got)
    with np.errstate(over="ignore", invalid="ignore"):  # nonfinite_mismatches counts these
        measured = _figures(task, expected, got, truth, class_names)
    figures = {name: float(np.nan_to_num(figure)) for name, figure in measured.items()}  # JSON
    if precision in FLOAT_PRECISIONS:
        inside = rows_within(task, expected, got, tolerances, class_names)
        metric, value = "within_tolerance", float(inside.mean())
        limit = 1.0 if bound is None else bound
        figures["rows_outside"] = float(rows - inside.sum())
    else:
        metric = _metric(task, figures, expected)
        value = figures[metric]
        best = tolerances.max_drop if metric == "max_rel_error" else 1 - tolerances.max_drop
        limit = best if bound is None else bound
    passed = value <= limit if metric == "max_rel_error" else value >= limit
    reason = None if passed else _reason(metric, value, limit, figures, rows)
    if figures["nonfinite_mismatches"] and precision not in FLOAT_PRECISIONS:
        passed = False
        reason = f"{figures['nonfinite_mismatches']:.0f} values are NaN or infinite in one only"
    parity = Parity(
        rows=rows,
        metric=metric,
        value=value,
        bound=limit,
        figures={name: figure for name, figure in figures.items() if name != metric},
    )
    return Comparison(parity=parity, passed=passed, reason=reason)


def rows_within(
    task: Task,
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerances: Tolerances,
    class_names: Sequence[str] = (),
) -> Array:
    """Tell for each row whether all its outputs are the original's within the tolerances.

    Returns:
        bool (N,).
    """
    rows = next(iter(expected.values())).shape[0]
    inside = np.ones(rows, dtype=np.bool_)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            same = np.isclose(
                got[name], values, rtol=tolerances.rtol, atol=tolerances.atol, equal_nan=True
            )
        else:
            same = same_labels(values, got[name])
            if task in _LABEL_TASKS and values.ndim == 1:
                scores = _scores(expected, rows)
                if scores is not None:
                    same = same | _tied(values, got[name], scores, tolerances, class_names)
        inside &= same.reshape(rows, -1).all(axis=1)
    return inside


def _tied(
    labels: Array,
    got: Array,
    scores: Array,
    tolerances: Tolerances,
    class_names: Sequence[str],
) -> Array:
    """Tell where the original's scores do not tell its label from the one that was got."""
    rows = len(labels)
    room = tolerances.atol + tolerances.rtol * np.abs(scores)
    if scores.shape[1] == 1:  # one score: its sign decides
        return np.less_equal(np.abs(scores[:, 0]), room[:, 0])
    column = {name: index for index, name in enumerate(class_names)}
    if not column and labels.dtype.kind in "iu":
        column = {str(index): index for index in range(scores.shape[1])}
    theirs = np.array([column.get(str(label), -1) for label in labels.tolist()])
    ours = np.array([column.get(str(label), -1) for label in got.tolist()])
    known = (theirs >= 0) & (ours >= 0) & (np.maximum(theirs, ours) < scores.shape[1])
    row = np.arange(rows)
    gap = np.abs(scores[row, theirs * known] - scores[row, ours * known])
    allowed = room[row, theirs * known] + room[row, ours * known]
    return np.logical_and(known, gap <= allowed)


def _scores(outputs: Mapping[str, Array], rows: int) -> Array | None:
    for values in outputs.values():
        if values.dtype.kind == "f" and values.ndim <= 2 and values.shape[0] == rows:
            return values.reshape(rows, -1).astype(np.float64)
    return None


def _figures(
    task: Task,
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    truth: Array | None,
    class_names: Sequence[str],
) -> dict[str, float]:
    floats = [name for name, values in expected.items() if values.dtype.kind == "f"]
    figures = {
        "nonfinite_mismatches": float(
            sum(nonfinite_mismatches(expected[name], got[name]) for name in floats)
        )
    }
    if task in _LABEL_TASKS:
        labels = labels_of(expected, class_names)
        figures["agreement"] = agreement(labels, labels_of(got, class_names))
        if truth is not None and task is not Task.CLUSTERING:  # clusters have no right names
            figures["accuracy_original"] = agreement(truth, labels)
            figures["accuracy"] = agreement(truth, labels_of(got, class_names))
        for name in floats:
            kind = "probability" if name == "probabilities" else name
            figures[f"max_{kind}_difference"] = largest_difference(expected[name], got[name])
        return figures
    several = several_labels_of(task, expected)
    if several is not None:
        figures["agreement"] = float(rows_agreeing(several, got["label"]).mean())
        if truth is not None:
            figures["accuracy_original"] = float(rows_agreeing(truth, several).mean())
            figures["accuracy"] = float(rows_agreeing(truth, got["label"]).mean())
        for name in floats:
            figures[f"max_{name}_difference"] = largest_difference(expected[name], got[name])
        return figures
    figures["max_rel_error"] = max(
        (largest_relative_error(expected[name], got[name]) for name in floats), default=0.0
    )
    if floats:
        value = floats[0]
        figures["r2"] = min(r2(expected[name], got[name]) for name in floats)
        ratios = [sqnr_db(expected[name], got[name]) for name in floats]
        noisy = [ratio for ratio in ratios if ratio is not None]
        if noisy:
            figures["sqnr_db"] = min(noisy)
        if truth is not None and task is Task.REGRESSION:
            figures["r2_truth_original"] = r2(truth, expected[value])
            figures["r2_truth"] = r2(truth, got[value])
    return figures


def several_labels_of(task: Task, outputs: Mapping[str, Array]) -> Array | None:
    """The labels (N, T) of a model that labels each row several times; None of all others.

    Such a model's task is generic, and beside "label" it gives nothing but probabilities.
    """
    label = outputs.get("label")
    if task is not Task.GENERIC or label is None or label.ndim != 2 or label.dtype.kind == "f":
        return None
    others = (name for name in outputs if name != "label")
    return label if all(name.startswith("probabilities") for name in others) else None


def labels_of(outputs: Mapping[str, Array], class_names: Sequence[str] = ()) -> Array:
    """Take the labels from a model's outputs: "label", or the largest score's class.

    Raises:
        ParityError: There is neither a label nor a score.
    """
    if "label" in outputs:
        return outputs["label"].reshape(-1)
    for values in outputs.values():
        if values.dtype.kind == "f" and values.ndim == 2:
            best: Array = values.argmax(axis=1)
            if len(class_names) == values.shape[1]:
                best = np.array(class_names, dtype=np.object_)[best]
            return best
    raise ParityError(f"outputs must have a label or scores, got {', '.join(outputs)}")


def _metric(task: Task, figures: Mapping[str, float], expected: Mapping[str, Array]) -> str:
    if task in _LABEL_TASKS or several_labels_of(task, expected) is not None:
        return "agreement"
    return "r2" if "r2" in figures else "max_rel_error"


def _check(expected: Mapping[str, Array], got: Mapping[str, Array]) -> int:
    if sorted(expected) != sorted(got) or not expected:
        raise ParityError(f"outputs must be {sorted(expected)}, got {sorted(got)}")
    for name, values in expected.items():
        if values.shape != got[name].shape or (values.dtype.kind == "f") != (
            got[name].dtype.kind == "f"
        ):
            raise ParityError(
                f"output {name!r} must be {values.dtype} {values.shape}, "
                f"got {got[name].dtype} {got[name].shape}"
            )
    rows = {values.shape[:1] for values in expected.values()}
    if len(rows) != 1 or rows & {(), (0,)}:
        raise ParityError(f"outputs must have the same number of rows and at least one, got {rows}")
    return next(iter(expected.values())).shape[0]


def _reason(
    metric: str, value: float, limit: float, figures: Mapping[str, float], rows: int
) -> str:
    if metric == "within_tolerance":
        return f"{figures['rows_outside']:.0f} of {rows} rows are outside the tolerance"
    relation = "at most" if metric == "max_rel_error" else "at least"
    return f"{metric} must be {relation} {limit:.4g}, got {value:.4g} on {rows} rows"
