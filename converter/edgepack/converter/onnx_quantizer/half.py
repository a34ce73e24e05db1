"""fp16: the weights are stored with 16 bits; inputs, outputs and arithmetic stay float32.

Half the file, and the engine widens the weights once, when it loads. Arithmetic in fp16 would add
a cast around every operator on processors without such kernels, which is most of them.
"""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgepack.converter.errors import UnsupportedModelError

_SMALLEST = 64  # elements; below, the cast's node outweighs what is saved
_LARGEST_VALUE = float(np.finfo(np.float16).max)


def to_half(model: ModelProto) -> ModelProto:
    """Store float32 constants as float16 with a cast behind each, in place.

    Raises:
        UnsupportedModelError: There is no such constant of a size that is worth it.
    """
    graph = model.graph
    fixed = {item.name for item in (*graph.input, *graph.output)}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in fixed:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or not _fits(values):
            continue
        name = tensor.name
        stored = f"{name}_fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    if not casts:
        raise UnsupportedModelError(
            f"the model has no float32 constant of {_SMALLEST} values or more that fits 16 bits"
        )
    nodes = [*casts, *graph.node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return model


def _fits(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bool:
    return bool(np.isfinite(values).all() and np.abs(values).max() <= _LARGEST_VALUE)
