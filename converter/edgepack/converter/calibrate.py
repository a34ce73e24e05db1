"""The rows that set the ranges of int8, as the fp32 file's own tensors. Pure."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.match import narrow
from edgepack.runtime.tensors import Array


def calibration_feeds(
    draft: Draft,
    arrays: Mapping[str, Array],
    rows: NDArray[np.int64],
    candidate: Candidate,
) -> dict[str, Array]:
    """The calibration rows by tensor name of the file that is to be quantized.

    Rows with NaN are left out: a range cannot hold them. Without any other row, nothing is given.
    """
    chosen = {name: array[rows] for name, array in arrays.items()}
    whole = np.ones(len(rows), dtype=np.bool_)
    for array in chosen.values():
        if array.dtype.kind == "f":
            whole &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if not whole.any():
        return {}
    tensors = {binding.name: binding.tensor for binding in candidate.facts.inputs}
    given = narrow(draft.inputs, {name: array[whole] for name, array in chosen.items()})
    return {tensors[name]: array for name, array in draft.prepared(given).items()}
