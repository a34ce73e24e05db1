"""The data's own labels, made comparable with the model's answers. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgepack.bundle.contract import Datatype, Task
from edgepack.converter.errors import UnfitDataError
from edgepack.runtime.labels import classes_of, numbered
from edgepack.runtime.parity import several_labels_of
from edgepack.runtime.tensors import Array

_MAX_SHOWN = 5
_MOST_CLASSES = 1000


def fit_truth(
    truth: Array, task: Task, outputs: Mapping[str, Array], class_names: Sequence[str]
) -> tuple[Array | None, tuple[str, ...]]:
    """Cast true answers to the kind that the model gives.

    Args:
        truth: (N,) or (N, T), as read.
        task: What the model is for.
        outputs: The original's, for their kind.
        class_names: The model's, or empty.

    Returns:
        The truth, or None where the task has none; and messages.

    Raises:
        UnfitDataError: It has one class only, is of another kind, or knows none of the classes.
    """
    if task is Task.CLASSIFICATION:
        return _classes(truth, outputs["label"], class_names)
    if task is Task.REGRESSION:
        return _numbers(truth, outputs["value"]), ()
    if task is Task.OUTLIER and truth.dtype.kind in "iuf" and set(truth.tolist()) <= {-1, 1}:
        return truth.astype(np.int64), ()
    several = several_labels_of(task, outputs)
    if several is not None:
        return _several(truth, several), ()
    return None, (f"the label is not used: there is no truth for {task.value}",)


def names_of_folders(
    folders: Sequence[str], outputs: Mapping[str, Array], class_names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes of a model that only numbers them, from the folders of its data.

    Folders are numbered in the order of their names, as `keras.utils.image_dataset_from_directory`
    and torchvision's `ImageFolder` do for training.

    Args:
        folders: Their names, sorted; empty if the data is no folder of classes.
        outputs: The original's.
        class_names: The model's own, or empty.

    Returns:
        The names, and messages.
    """
    label = outputs.get("label")
    if class_names or not folders or label is None or label.dtype.kind not in "iu":
        return tuple(class_names), ()
    if all(name.isdecimal() for name in folders):
        return (), ()
    widths = {array.shape[1] for array in outputs.values() if array.ndim == 2}
    if len(folders) not in widths:
        return (), ()
    told = ", ".join(f"{index} {name[:40]}" for index, name in enumerate(folders[:_MAX_SHOWN]))
    more = ", …" if len(folders) > _MAX_SHOWN else ""
    return tuple(folders), (f"classes are numbered in the order of the folders: {told}{more}",)


def looks_like_classes(truth: Array, columns: int) -> bool:
    """Tell whether truths are numbers of one of so many classes, or names of them."""
    if truth.ndim != 1 or columns < 2:
        return False
    if truth.dtype.kind in "biu":
        return int(truth.min()) >= 0 and int(truth.max()) < columns
    return truth.dtype == np.object_


def _classes(
    truth: Array, labels: Array, class_names: Sequence[str]
) -> tuple[Array, tuple[str, ...]]:
    if truth.ndim != 1:
        raise UnfitDataError(f"labels must be one column, got {truth.shape[1]}")
    _refuse_missing(truth)
    found = sorted({str(item) for item in truth.tolist()})
    if len(found) < 2:
        raise UnfitDataError(f"the label must have at least 2 classes, got only {found[0]!r}")
    fitted = numbered(truth, labels, class_names)
    known = set(class_names)
    names = set(found)
    if fitted is truth:
        fitted = _as_text(truth) if labels.dtype == np.object_ else _as_whole(truth, class_names)
        names = {str(item) for item in fitted.tolist()}
        if labels.dtype.kind in "iu" and classes_of(tuple(class_names), Datatype.INT64) is None:
            known = {str(index) for index in range(len(class_names))}
    if not known:
        return fitted, ()
    unknown = sorted(names - known)
    if len(unknown) == len(found):
        raise UnfitDataError(
            f"the label has none of the model's classes: it has {_shown(found)}, "
            f"the model {_shown(list(class_names))}"
        )
    if unknown:
        return fitted, (f"the label has classes that the model never gives: {_shown(unknown)}",)
    return fitted, ()


def _several(truth: Array, labels: Array) -> Array:
    """One column of truths for each of the model's labels."""
    found = truth.reshape(len(truth), -1)
    if found.shape[1] != labels.shape[1]:
        raise UnfitDataError(
            f"the model gives {labels.shape[1]} labels a row: name as many columns of truths "
            f"(--label a,b), got {found.shape[1]}"
        )
    _refuse_missing(found)
    columns = [found[:, target] for target in range(found.shape[1])]
    fit = _as_text if labels.dtype == np.object_ else _as_whole_numbers
    return np.stack([fit(column) for column in columns], axis=1)


def _as_whole_numbers(truth: Array) -> Array:
    return _as_whole(truth, ())


def _refuse_missing(truth: Array) -> None:
    if truth.dtype.kind == "f":
        missing = int(np.isnan(truth).sum())
    elif truth.dtype == np.object_:
        missing = sum(1 for item in truth.ravel().tolist() if item == "")
    else:
        return
    if missing:
        raise UnfitDataError(f"the label must have a value in every row, got {missing} without")


def _as_text(truth: Array) -> Array:
    if truth.dtype.kind == "f" and np.array_equal(truth, np.floor(truth)):
        truth = truth.astype(np.int64)
    text = np.empty(len(truth), dtype=np.object_)
    text[:] = [str(item) for item in truth.tolist()]
    return text


def _as_whole(truth: Array, class_names: Sequence[str]) -> Array:
    if truth.dtype == np.object_:
        try:
            return np.array([int(item) for item in truth.tolist()], dtype=np.int64)
        except ValueError as exc:
            names = _shown(list(class_names))
            why = f"as its classes {names} are" if names else "for it has no names for its classes"
            raise UnfitDataError(
                f"the label must be the numbers of the model's classes, {why}, got text "
                f"{str(truth[0])[:40]!r}"
            ) from exc
    if truth.dtype.kind == "f" and not np.array_equal(truth, np.floor(truth)):
        raise UnfitDataError(f"the label must be classes, got the fraction {truth[0]}")
    whole: Array = truth.astype(np.int64)
    if len(np.unique(whole)) > _MOST_CLASSES:
        raise UnfitDataError(
            f"the label must be classes, got {len(np.unique(whole))} different numbers"
        )
    return whole


def _numbers(truth: Array, value: Array) -> Array:
    if truth.dtype.kind not in "biuf":
        raise UnfitDataError(f"the label must be numeric, got text {str(truth.ravel()[0])[:40]!r}")
    _refuse_missing(truth)
    numbers: Array = truth.astype(np.float64)
    if numbers.shape[1:] != value.shape[1:]:
        raise UnfitDataError(
            f"the label must have shape {['N', *value.shape[1:]]} as the model's answers, "
            f"got {['N', *numbers.shape[1:]]}"
        )
    return numbers


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _MAX_SHOWN
    text = ", ".join(repr(name[:40]) for name in names[:_MAX_SHOWN])
    return f"{text} and {more} more" if more > 0 else text
