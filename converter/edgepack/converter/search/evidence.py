"""What shows that the variants answer as the original: measured once, packed, and rendered later.

Everything here is of the held-out rows, which calibration never saw. Nothing here is a timing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.contract import Task
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import ConvertError
from edgepack.converter.parity import HeldOut, answers_of
from edgepack.converter.prove import ProvenModel
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.search.verdict import first_numbers, rows_alike
from edgepack.monitor.quality import wilson_interval
from edgepack.runtime.errors import EngineError, InputError, ParityError
from edgepack.runtime.figures import rows_agreeing, same_labels, sqnr_db
from edgepack.runtime.parity import labels_of, several_labels_of
from edgepack.runtime.tensors import Array
from edgepack.trust import strict_json
from edgepack.trust.decode import encode
from edgepack.trust.strict_json import JsonValue

PATH: Final = "evidence.json"
NOISE_LEVELS: Final = (0.01, 0.03, 0.1)
MOST_ROWS: Final = 256
MOST_FEATURES: Final = 64
_MOST_CLASSES: Final = 64
_BINS: Final = 40
_LABEL_TASKS: Final = frozenset({Task.CLASSIFICATION, Task.OUTLIER, Task.CLUSTERING})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """What the measurements need.

    Attributes:
        draft: Of the contract.
        held_out: The rows, and the original's answers.
        original: For answers to changed rows.
    """

    draft: Draft
    held_out: HeldOut
    original: OriginalModel


def gather(proof: Proof, kept: Sequence[Candidate]) -> dict[str, JsonValue]:
    """Measure the original and every variant that is packed."""
    answers = {item.name: answers_of(proof.draft, item, proof.held_out.inputs) for item in kept}
    document: dict[str, JsonValue] = {
        "task": proof.draft.task.value,
        "rows": proof.held_out.rows,
        "classes": list(proof.draft.class_names),
        "original": _quality(proof, proof.held_out.expected),
        "variants": {
            name: {**_quality(proof, got), **_differences(proof, got)}
            for name, got in answers.items()
        },
        "robustness": _robustness(proof, kept),
        "importance": _importance(proof),
    }
    return document


def render(found: dict[str, JsonValue], proven: ProvenModel) -> bytes:
    """Write the evidence canonically, with how it came about.

    Args:
        found: What `gather` gave.
        proven: For the candidates and the calibration rows.
    """
    digest = hashlib.sha256()
    for name, array in sorted(proven.inputs.items()):
        chosen = array[proven.split.calibration]
        digest.update(f"{name}:{chosen.dtype}:{chosen.shape}\n".encode())
        text = chosen.dtype.kind in "OU"
        digest.update("\n".join(map(str, chosen.ravel())).encode() if text else chosen.tobytes())
    rows = len(proven.split.calibration)
    calibration: JsonValue = {"rows": rows, "digest": f"sha256:{digest.hexdigest()}"}
    candidates: JsonValue = [encode(report) for report in proven.reports]
    document: dict[str, JsonValue] = {
        "format": 1,
        "calibration": calibration,
        "candidates": candidates,
        **found,
    }
    return strict_json.render(document) + b"\n"


def _quality(proof: Proof, outputs: Mapping[str, Array]) -> dict[str, JsonValue]:
    """Against the truth, where it is known."""
    truth = proof.held_out.truth
    if truth is not None and several_labels_of(proof.draft.task, outputs) is not None:
        return _several(truth, outputs["label"], proof)
    if truth is None or proof.draft.task not in (Task.CLASSIFICATION, Task.REGRESSION):
        return {}
    if proof.draft.task is Task.REGRESSION:
        return _regression(truth, outputs["value"])
    labels = labels_of(outputs, proof.draft.class_names)
    right = same_labels(truth, labels)
    low, high = wilson_interval(int(right.sum()), len(right))
    order = class_order(proof.draft.class_names)
    names = sorted({str(item) for item in truth.tolist()}, key=order)[:_MOST_CLASSES]
    text = np.array([str(item) for item in truth.tolist()])
    guessed = np.array([str(item) for item in labels.tolist()])
    recall: dict[str, JsonValue] = {}
    for name in names:
        mine = text == name
        hits, count = int((right & mine).sum()), int(mine.sum())
        interval = wilson_interval(hits, count)
        recall[name] = {"value": hits / count, "interval": list(interval), "rows": count}
    others = sorted(set(guessed.tolist()) - set(names), key=order)[: _MOST_CLASSES - len(names)]
    classes = [*names, *others]
    counts: list[JsonValue] = [
        [int(((text == row) & (guessed == column)).sum()) for column in classes] for row in names
    ]
    return {
        "accuracy": {"value": float(right.mean()), "interval": [low, high]},
        "recall": recall,
        "confusion": {"truth": list(names), "answer": list(classes), "counts": counts},
    }


def _several(truth: Array, labels: Array, proof: Proof) -> dict[str, JsonValue]:
    """Of models that label a row several times: all labels of a row, and each target alone."""
    right = rows_agreeing(truth, labels)
    spec = next(item for item in proof.draft.outputs if item.name == "label")
    names = spec.feature_names or tuple(f"label_{target}" for target in range(labels.shape[1]))
    each = same_labels(truth, labels).reshape(labels.shape)
    targets: dict[str, JsonValue] = {}
    for target, name in list(enumerate(names))[:_MOST_CLASSES]:
        hits = int(each[:, target].sum())
        interval = list(wilson_interval(hits, len(each)))
        targets[name] = {"value": hits / len(each), "interval": list(interval)}
    return {
        "accuracy": {
            "value": float(right.mean()),
            "interval": list(wilson_interval(int(right.sum()), len(right))),
        },
        "targets": targets,
    }


def class_order(class_names: Sequence[str]) -> Callable[[str], tuple[int, float, str]]:
    """How classes are listed: as the model has them, then by number, then by text."""
    places = {name: place for place, name in enumerate(class_names)}

    def place(name: str) -> tuple[int, float, str]:
        if name in places:
            return 0, places[name], name
        digits = name.removeprefix("-")
        number = digits.isascii() and digits.isdigit()
        return (1, int(name), name) if number else (2, 0, name)

    return place


def _regression(truth: Array, value: Array) -> dict[str, JsonValue]:
    error = (value.astype(np.float64) - truth.astype(np.float64)).reshape(len(truth), -1)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "errors": _histogram(error.ravel()),
    }


def _differences(proof: Proof, got: Mapping[str, Array]) -> dict[str, JsonValue]:
    """Against the original, output by output."""
    outputs: dict[str, JsonValue] = {}
    for name, expected in proof.held_out.expected.items():
        if expected.dtype.kind != "f":
            hits = int(same_labels(expected.reshape(-1), got[name].reshape(-1)).sum())
            low, high = wilson_interval(hits, expected.size)
            outputs[name] = {"agreement": {"value": hits / expected.size, "interval": [low, high]}}
            continue
        difference = (got[name].astype(np.float64) - expected.astype(np.float64)).ravel()
        finite = difference[np.isfinite(difference)]
        found: dict[str, JsonValue] = {
            "largest": float(np.abs(finite).max(initial=0.0)),
            "differences": _histogram(finite),
        }
        ratio = sqnr_db(expected, got[name])
        if ratio is not None:
            found["sqnr_db"] = ratio
        outputs[name] = found
    return {"outputs": outputs}


def _histogram(values: NDArray[np.float64]) -> dict[str, JsonValue]:
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(finite, bins=_BINS)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def _robustness(proof: Proof, kept: Sequence[Candidate]) -> dict[str, JsonValue]:
    """How often answers change when the inputs do, by bounded uniform noise.

    The noise of an input's column is at most the level times the column's standard deviation.
    For labels the figure is the fraction that flips; for numbers the mean change relative to
    their standard deviation.
    """
    inputs, rows = _first_rows(proof)
    random = np.random.Generator(np.random.PCG64(rows))
    changes: dict[str, list[JsonValue]] = {"original": [], **{item.name: [] for item in kept}}
    levels: list[JsonValue] = []
    try:
        for level in NOISE_LEVELS:
            noisy = {name: _noisy(array, level, random) for name, array in inputs.items()}
            task = proof.draft.task
            before, after = proof.original.run(task, inputs), proof.original.run(task, noisy)
            changes["original"].append(_change(proof, before, after))
            for item in kept:
                before = answers_of(proof.draft, item, inputs)
                after = answers_of(proof.draft, item, noisy)
                changes[item.name].append(_change(proof, before, after))
            levels.append(level)
    except (ConvertError, EngineError, InputError, ParityError, KeyError):
        return {}  # noise takes some models out of the values they know
    return {
        "levels": levels,
        "rows": rows,
        "changes": {name: list(c) for name, c in changes.items()},
    }


def _noisy(array: Array, level: float, random: np.random.Generator) -> Array:
    if array.dtype.kind not in "fiu":
        return array
    spread = np.nan_to_num(np.nanstd(array.astype(np.float64), axis=0)) * level
    moved = array + random.uniform(-1, 1, array.shape) * spread
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        moved = np.clip(np.rint(moved), limits.min, limits.max)
    changed: Array = moved.astype(array.dtype)
    return changed


def _change(proof: Proof, before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    if proof.draft.task in _LABEL_TASKS:
        names = proof.draft.class_names
        return float(1 - same_labels(labels_of(before, names), labels_of(after, names)).mean())
    name = first_numbers(before)
    several = several_labels_of(proof.draft.task, before)
    if several is not None:
        return float(1 - rows_agreeing(several, after["label"]).mean())
    if name is None:
        return float(1 - rows_alike(before, after).mean())
    first = before[name].astype(np.float64)
    spread = float(first.std()) or 1.0
    return float(np.nan_to_num(np.abs(after[name] - first)).mean() / spread)


def _importance(proof: Proof) -> list[JsonValue]:
    """Permutation importance of a table's columns (Breiman 2001), asked of the original.

    What is lost of accuracy (R² for numbers; agreement with itself without truths) when one
    column's values are dealt to other rows.
    """
    inputs, rows = _first_rows(proof)
    columns = [
        (name, index, spec.feature_names[index] if spec.feature_names else f"{name}[{index}]")
        for spec in proof.draft.inputs
        for name in [spec.name]
        if len(spec.shape) == 2
        for index in range(inputs[name].shape[1])
    ]
    wide = any(len(spec.shape) != 2 for spec in proof.draft.inputs)
    if wide or not 2 <= len(columns) <= MOST_FEATURES:
        return []
    random = np.random.Generator(np.random.PCG64(rows))
    try:
        whole = proof.original.run(proof.draft.task, inputs)
        before = _score(proof, whole, whole, rows)
        found: list[JsonValue] = []
        for name, index, feature in columns:
            changed = dict(inputs)
            changed[name] = inputs[name].copy()
            changed[name][:, index] = changed[name][random.permutation(rows), index]
            after = proof.original.run(proof.draft.task, changed)
            loss = before - _score(proof, whole, after, rows)
            found.append({"feature": feature, "loss": float(loss)})
    except (ConvertError, KeyError):
        return []
    return found


def _score(proof: Proof, whole: Mapping[str, Array], got: Mapping[str, Array], rows: int) -> float:
    truth = proof.held_out.truth
    names = proof.draft.class_names
    if proof.draft.task in _LABEL_TASKS:
        known = truth is not None and proof.draft.task is not Task.CLUSTERING
        expected = truth[:rows] if known and truth is not None else labels_of(whole, names)
        return float(same_labels(expected, labels_of(got, names)).mean())
    name = first_numbers(whole)
    several = several_labels_of(proof.draft.task, whole)
    if several is not None:
        labels = several if truth is None else truth[:rows]
        return float(rows_agreeing(labels, got["label"]).mean())
    if name is None:
        return float(rows_alike(whole, got).mean())
    known = truth is not None and proof.draft.task is Task.REGRESSION
    expected = truth[:rows] if known and truth is not None else whole[name]
    flat = expected.reshape(rows, -1).astype(np.float64)
    total = float(((flat - flat.mean(axis=0)) ** 2).sum()) or 1.0
    return 1 - float(((got[name].reshape(rows, -1) - flat) ** 2).sum()) / total


def _first_rows(proof: Proof) -> tuple[dict[str, Array], int]:
    rows = min(MOST_ROWS, proof.held_out.rows)
    return {name: array[:rows] for name, array in proof.held_out.inputs.items()}, rows
