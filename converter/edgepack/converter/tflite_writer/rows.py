"""Rows to compare two files on: the caller's, or random ones."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_graph import datatype_of_element
from edgepack.runtime.tensors import DTYPES, Array

_MOST = 256
_RANDOM = 64
_LEAST = 3  # so that a graph can be tried on 2 and on 3 rows


def rows_for(model: ModelProto, feeds: Mapping[str, Array], batch: int | None) -> dict[str, Array]:
    """Rows for every input of a file, in the file's order and types.

    Args:
        model: The ONNX file.
        feeds: By input; may be empty.
        batch: The number of rows that the file fixes, or None.

    Raises:
        UnsupportedModelError: An input is text, or has a free size that no feed settles.
    """
    fixed = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in fixed]
    given = min((len(feeds[item.name]) for item in inputs if item.name in feeds), default=0)
    count = min(given, _MOST) or _RANDOM
    least = batch or _LEAST
    count = max(count, least)
    count -= count % least if batch else 0
    generator = np.random.default_rng(0)
    rows = {}
    for item in inputs:
        datatype = datatype_of_element(item.type.tensor_type.elem_type)
        dtype = DTYPES[datatype]
        if dtype.kind not in "fiub":
            raise UnsupportedModelError(
                f"a TFLite file takes no text, got the input {item.name[:80]!r}"
            )
        if item.name in feeds:
            found = np.asarray(feeds[item.name])[:count]
            times = -(-count // max(len(found), 1))
            rows[item.name] = np.concatenate([found] * times)[:count].astype(dtype)
            continue
        sizes = [dim.dim_value for dim in item.type.tensor_type.shape.dim][1:]
        if 0 in sizes or not item.type.tensor_type.HasField("shape"):
            raise UnsupportedModelError(
                f"the input {item.name[:80]!r} has a free size besides the number of rows"
            )
        shape = (count, *sizes)
        if dtype.kind == "f":
            rows[item.name] = generator.standard_normal(shape).astype(dtype)
        else:
            rows[item.name] = generator.integers(0, 2, shape).astype(dtype)
    return rows
