"""Operators that move numbers without changing them."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Shape, Tensor
from edgepack.converter.tflite_writer.graph import Axes, Graph, Step, Value
from edgepack.converter.tflite_writer.operators.elementwise import common_axes, joined
from edgepack.converter.tflite_writer.write_operator import Operators
from edgepack.runtime.tensors import Array


def _reshape(graph: Graph, step: Step) -> None:
    value, shape = graph.value(step.inputs[0]), graph.shape(step.output)
    old = [axis for axis in range(value.rank) if value.shape[axis] != 1]
    new = [axis for axis in range(len(shape)) if shape[axis] != 1]
    if value.tensor is None:
        graph.alias(step.output, value)
    elif [value.shape[axis] for axis in old] == [shape[axis] for axis in new]:
        # Only sizes of 1 come or go: the dimensions get other numbers, nothing moves.
        renamed = dict(zip(old, new, strict=True))
        graph.alias(step.output, value, tuple(renamed.get(axis, -1) for axis in value.axes))
    else:
        tensor = graph.in_order(step.inputs[0])
        graph.put(step.output, graph.reshaped(tensor, shape))


def _transpose(graph: Graph, step: Step) -> None:
    value = graph.value(step.inputs[0])
    order = list(step.attribute("perm", range(value.rank)[::-1]))
    if value.constant is not None:
        graph.put(step.output, graph.draft.constant(value.constant.transpose(order), value.name))
    else:
        axes = tuple(order.index(axis) if axis >= 0 else -1 for axis in value.axes)
        graph.alias(step.output, value, axes)


def _concat(graph: Graph, step: Step) -> None:
    shape = graph.shape(step.output)
    axis = step.attribute("axis", 1) % len(shape)
    names = [name for name in step.inputs if 0 not in graph.shape(name)]
    values = [graph.value(name) for name in names]
    if len(values) == 1:
        graph.alias(step.output, values[0])
        return
    axes = common_axes(values, shape)
    if axis not in axes:
        axes = tuple(range(len(shape)))
    tensors = []
    for value, name in zip(values, names, strict=True):
        if value.tensor is None and value.shape != graph.shape(name):
            value = _in_every_row(graph, step, value, values)  # noqa: PLW2901
        tensors.append(graph.arranged(value, axes))
    made = concatenated(graph, tensors, axes.index(axis), step.output)
    graph.put(step.output, made, axes)


def _in_every_row(graph: Graph, step: Step, value: Value, others: Sequence[Value]) -> Value:
    """A constant that stands in every row, which only a row can make as many as there are."""
    source = next((v for v in others if v.tensor is not None and v.dtype == "float32"), None)
    if source is None or value.dtype != "float32" or source.rank != value.rank != 2:
        raise step.refuse("of a constant in every row")
    x = graph.arranged(source, (0, 1))
    column = sliced(graph, x, [0, 0], [-1, 1], f"{value.name}_row")
    number = graph.draft.constant(np.array([0.0], dtype=np.float32), "number")
    nothing = graph.draft.add(
        "MUL",
        [column, number],
        column.shape,
        name=f"{value.name}_nothing",
        options=schema.MulOptionsT(),
    )
    shape = (column.shape[0], value.shape[1])
    held = graph.draft.add(
        "ADD",
        [nothing, graph.arranged(value, (0, 1))],
        shape,
        name=f"{value.name}_rows",
        options=schema.AddOptionsT(),
    )
    return Value(name=value.name, shape=shape, dtype="float32", tensor=held, axes=(0, 1))


def concatenated(graph: Graph, tensors: Sequence[Tensor], axis: int, name: str) -> Tensor:
    """Tensors one after the other along a dimension."""
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return graph.draft.add(
        "CONCATENATION",
        tensors,
        tuple(shape),
        name=name,
        dtype=tensors[0].dtype,
        options=schema.ConcatenationOptionsT(axis=axis),
    )


def sliced(
    graph: Graph, tensor: Tensor, begin: Sequence[int], size: Sequence[int], name: str
) -> Tensor:
    """A part of a tensor; -1 as a size is all that is left."""
    shape = tuple(
        full if wanted == -1 and not start else full - start if wanted == -1 else wanted
        for full, start, wanted in zip(tensor.shape, begin, size, strict=True)
    )
    if shape == tensor.shape:
        return tensor
    return graph.draft.add(
        "SLICE",
        [tensor, graph.draft.integers(begin, "begin"), graph.draft.integers(size, "size")],
        shape,
        name=name,
        dtype=tensor.dtype,
        options=schema.SliceOptionsT(),
    )


def _slice(graph: Graph, step: Step) -> None:
    rank = len(graph.shape(step.inputs[0]))
    if step.has_input(1):
        starts, ends = graph.static(step, 1).tolist(), graph.static(step, 2).tolist()
        axes = graph.static(step, 3).tolist() if step.has_input(3) else list(range(len(starts)))
        steps = graph.static(step, 4).tolist() if step.has_input(4) else [1] * len(starts)
    else:
        starts, ends = list(step.attribute("starts")), list(step.attribute("ends"))
        axes = list(step.attribute("axes", range(len(starts))))
        steps = [1] * len(starts)
    ranges = {axis % rank: parts for axis, *parts in zip(axes, starts, ends, steps, strict=True)}
    take_ranges(graph, step, {axis: (a, b, c) for axis, (a, b, c) in ranges.items()}, step.output)


def take_ranges(
    graph: Graph, step: Step, ranges: dict[int, tuple[int, int, int]], output: str
) -> None:
    """Cut a value; by dimension as ONNX counts them: start, end and step as Python has them."""
    value = graph.value(step.inputs[0])
    places: dict[int, list[int]] = {}
    for axis, (start, end, stride) in ranges.items():
        size = value.shape[axis]
        if size < 0:
            if (start, stride) != (0, 1) or 0 <= end < 2**31 - 1:
                raise step.refuse("of the rows")
            continue
        found = list(range(size))[slice(start, None if end < -size else end, stride)]
        if found != list(range(size)):
            places[axis] = found
    axes = value.axes
    if value.tensor is None or any(axis not in axes for axis in places):
        axes = tuple(range(value.rank))
    tensor = graph.arranged(value, axes)
    begin, sizes = [0] * len(axes), [-1] * len(axes)
    for axis, found in places.items():
        if found == list(range(found[0], found[0] + len(found))):
            begin[axes.index(axis)], sizes[axes.index(axis)] = found[0], len(found)
        else:
            tensor = gathered(graph, tensor, found, axes.index(axis), output)
    graph.put(output, sliced(graph, tensor, begin, sizes, output), axes)


def gathered(graph: Graph, tensor: Tensor, places: Sequence[int], axis: int, name: str) -> Tensor:
    """Some of a tensor, by their places along a dimension."""
    places = list(places)
    if places == list(range(places[0], places[0] + len(places))):
        begin, size = [0] * len(tensor.shape), [-1] * len(tensor.shape)
        begin[axis], size[axis] = places[0], len(places)
        return sliced(graph, tensor, begin, size, name)
    shape = (*tensor.shape[:axis], len(places), *tensor.shape[axis + 1 :])
    return graph.draft.add(
        "GATHER",
        [tensor, graph.draft.integers(places, "places")],
        shape,
        name=name,
        dtype=tensor.dtype,
        options=schema.GatherOptionsT(axis=axis),
    )


def _gather(graph: Graph, step: Step) -> None:
    value = graph.value(step.inputs[0])
    axis = step.attribute("axis", 0) % value.rank
    if not graph.is_static(step.inputs[1]):
        _gather_computed(graph, step, axis)
        return
    places = graph.static(step, 1)
    size = value.shape[axis]
    if size < 0 or places.ndim > 1:
        raise step.refuse("of rows, or by a matrix")
    axes = value.axes if axis in value.axes else tuple(range(value.rank))
    tensor = graph.arranged(value, axes)
    wanted = [int(place) % size for place in places.reshape(-1)]
    made = gathered(graph, tensor, wanted, axes.index(axis), step.output)
    if places.ndim == 0:
        axes = tuple(-1 if a == axis else a - 1 if a > axis else a for a in axes)
    graph.put(step.output, made, axes)


def _gather_computed(graph: Graph, step: Step, axis: int) -> None:
    table, places = graph.plain(step.inputs[0]), graph.plain(step.inputs[1])
    shape = graph.shape(step.output)
    made = graph.draft.add(
        "GATHER",
        [table, places],
        shape,
        name=step.output,
        dtype=table.dtype,
        options=schema.GatherOptionsT(axis=axis),
    )
    graph.put(step.output, made)


def _array_feature_extractor(graph: Graph, step: Step) -> None:
    value = graph.value(step.inputs[0])
    if not graph.is_static(step.inputs[1]):
        raise step.refuse("with computed places")
    places = [int(place) for place in graph.static(step, 1).reshape(-1)]
    axis = value.rank - 1
    axes = value.axes if axis in value.axes else tuple(range(value.rank))
    made = gathered(graph, graph.arranged(value, axes), places, axes.index(axis), step.output)
    shape = graph.shape(step.output)
    if joined(shape, axes) != made.shape:
        axes = tuple(range(len(shape)))
        made = graph.reshaped(made, shape)
    graph.put(step.output, made, axes)


def _split(graph: Graph, step: Step) -> None:
    axis = step.attribute("axis", 0) % len(graph.shape(step.inputs[0]))
    start = 0
    for name in step.outputs:
        size = graph.shape(name)[axis]
        take_ranges(graph, step, {axis: (start, start + size, 1)}, name)
        start += size


def _pad(graph: Graph, step: Step) -> None:
    value = graph.value(step.inputs[0])
    if step.has_input(1):
        pads = graph.static(step, 1).tolist()
    else:
        pads = list(step.attribute("pads"))
    number = 0.0
    if step.has_input(2):
        number = float(graph.static(step, 2).reshape(()))
    elif step.attribute("value") is not None:
        number = float(step.attribute("value"))
    padded = list(range(value.rank))
    if step.has_input(3):
        padded = [int(axis) % value.rank for axis in graph.static(step, 3)]
    before = {axis: int(pads[i]) for i, axis in enumerate(padded)}
    after = {axis: int(pads[i + len(padded)]) for i, axis in enumerate(padded)}
    if min([*before.values(), *after.values()]) < 0:
        raise step.refuse("with negative sizes")
    axes = value.axes
    if value.tensor is None or any((before[a] or after[a]) and a not in axes for a in padded):
        axes = tuple(range(value.rank))
    amounts = [(before.get(axis, 0), after.get(axis, 0)) for axis in axes]
    tensor = graph.arranged(value, axes)
    mode = step.attribute("mode", "constant")
    if mode == "reflect":
        made = mirrored(graph, tensor, amounts, step.output)
    elif mode == "constant":
        made = padded_with(graph, tensor, amounts, number, step.output)
    else:
        raise step.refuse(f"in the mode {mode}")
    graph.put(step.output, made, axes)


def padded_with(
    graph: Graph, tensor: Tensor, amounts: Sequence[tuple[int, int]], number: float, name: str
) -> Tensor:
    """A tensor with numbers put round it."""
    if not any(map(any, amounts)):
        return tensor
    table = graph.draft.constant(np.array(amounts, dtype=np.int32), "amounts")
    shape = _grown(tensor.shape, amounts)
    if number == 0.0:
        return graph.draft.add(
            "PAD",
            [tensor, table],
            shape,
            name=name,
            dtype=tensor.dtype,
            options=schema.PadOptionsT(),
        )
    value: Array = np.array([number], dtype=tensor.dtype)
    return graph.draft.add(
        "PADV2",
        [tensor, table, graph.draft.constant(value, "number")],
        shape,
        name=name,
        dtype=tensor.dtype,
        options=schema.PadV2OptionsT(),
    )


def mirrored(graph: Graph, tensor: Tensor, amounts: Sequence[tuple[int, int]], name: str) -> Tensor:
    """A tensor continued by its mirror image, without its edge."""
    table = graph.draft.constant(np.array(amounts, dtype=np.int32), "amounts")
    return graph.draft.add(
        "MIRROR_PAD",
        [tensor, table],
        _grown(tensor.shape, amounts),
        name=name,
        dtype=tensor.dtype,
        options=schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT),
    )


def _grown(shape: Shape, amounts: Sequence[tuple[int, int]]) -> Shape:
    return tuple(size + sum(more) for size, more in zip(shape, amounts, strict=True))


def _tile(graph: Graph, step: Step) -> None:
    times = [int(count) for count in graph.static(step, 1)]
    tensor = graph.plain(step.inputs[0])
    if any(count != 1 and size < 0 for count, size in zip(times, tensor.shape, strict=True)):
        raise step.refuse("of the rows")
    made = graph.draft.add(
        "TILE",
        [tensor, graph.draft.integers(times, "times")],
        graph.shape(step.output),
        name=step.output,
        dtype=tensor.dtype,
        options=schema.TileOptionsT(),
    )
    graph.put(step.output, made)


def _block_axes(graph: Graph, step: Step, code: str) -> None:
    channels_last: Axes = (0, 2, 3, 1)
    shape = graph.shape(step.output)
    options = (
        schema.DepthToSpaceOptionsT(blockSize=step.attribute("blocksize"))
        if code == "DEPTH_TO_SPACE"
        else schema.SpaceToDepthOptionsT(blockSize=step.attribute("blocksize"))
    )
    made = graph.draft.add(
        code,
        [graph.arranged(graph.value(step.inputs[0]), channels_last)],
        joined(shape, channels_last),
        name=step.output,
        options=options,
    )
    graph.put(step.output, made, channels_last)


def _depth_to_space(graph: Graph, step: Step) -> None:
    if step.attribute("mode", "DCR") != "DCR":
        raise step.refuse("in the mode CRD")
    _block_axes(graph, step, "DEPTH_TO_SPACE")


def _space_to_depth(graph: Graph, step: Step) -> None:
    _block_axes(graph, step, "SPACE_TO_DEPTH")


OPERATORS: Operators = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Flatten": _reshape,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "ai.onnx.ml.ArrayFeatureExtractor": _array_feature_extractor,
    "ai.onnx.ml.FeatureVectorizer": _concat,
}
