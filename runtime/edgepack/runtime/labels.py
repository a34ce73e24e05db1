"""Labels that are not a tensor of the file: the class of the largest score.

A TFLite file has no text and needs no ArgMax of its own: `derive="argmax"` in a binding makes the
runtime choose.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from edgepack.bundle.contract import Datatype, TensorBinding, TensorSpec
from edgepack.runtime.errors import EngineError
from edgepack.runtime.tensors import DTYPES, Array, strings

Labeller: TypeAlias = Callable[[Array], Array]


def labeller_of(
    spec: TensorSpec, binding: TensorBinding, class_names: tuple[str, ...]
) -> Labeller | None:
    """Make the function from scores (…, classes) to labels (…), or None if none are derived.

    The first of equal scores wins.

    Raises (the function):
        EngineError: The file gives another number of scores than the contract has classes.
    """
    if binding.derive is None:
        return None
    classes = classes_of(class_names, spec.datatype)
    if classes is None:
        dtype = DTYPES[spec.datatype]
        return lambda scores: scores.argmax(axis=-1).astype(dtype)
    names = classes  # for the closure: never None

    def label(scores: Array) -> Array:
        if scores.shape[-1] != len(names):
            raise EngineError(
                f"tensor {binding.tensor!r} must have {len(names)} scores a row (class_names), "
                f"got {scores.shape[-1]}"
            )
        found: Array = names.take(scores.argmax(axis=-1))
        return found

    return label


def classes_of(class_names: tuple[str, ...], datatype: Datatype) -> Array | None:
    """The classes as values of a datatype, or None where the names are none of its values.

    >>> classes_of(("3", "5"), Datatype.INT64).tolist()
    [3, 5]
    >>> classes_of(("cat", "dog"), Datatype.INT64) is None
    True
    """
    if not class_names:
        return None
    if datatype is Datatype.BYTES:
        return strings(class_names, (len(class_names),))
    if datatype is Datatype.BOOL:
        values = {"False": False, "True": True, "0": False, "1": True}
        known = [values[name] for name in class_names if name in values]
        return np.array(known) if len(known) == len(class_names) else None
    dtype = DTYPES[datatype]
    try:
        if dtype.kind == "f":
            return np.array([float(name) for name in class_names], dtype=dtype)
        numbers = [int(name) for name in class_names]
    except ValueError:
        return None
    limits = np.iinfo(dtype)
    if min(numbers) < limits.min or max(numbers) > limits.max:
        return None
    return np.array(numbers, dtype=dtype)


def numbered(truth: Array, labels: Array, class_names: Sequence[str]) -> Array:
    """A truth that names classes, as their numbers, where a model's labels are numbers of them.

    Args:
        truth: (N,); given back as it is where it is not text.
        labels: The model's, for their kind.
        class_names: The contract's: a label that none of them reads as is an index into them.

    Returns:
        int64 (N,), -1 for a name that is no class; or the truth as it is.

    >>> numbered(strings(["dog", "cat"], (2,)), np.array([0, 0]), ("cat", "dog")).tolist()
    [1, 0]
    """
    is_named = truth.dtype == np.object_ and labels.dtype.kind in "iu" and bool(class_names)
    if not is_named or classes_of(tuple(class_names), Datatype.INT64) is not None:
        return truth
    places = {name: index for index, name in enumerate(class_names)}
    return np.array([places.get(str(item), -1) for item in truth.tolist()], dtype=np.int64)
