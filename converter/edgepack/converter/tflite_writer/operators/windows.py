"""Operators that slide a window over an image or a signal: convolutions and pooling.

All of them work with channels last on two dimensions; a signal is an image of height 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Shape, Tensor
from edgepack.converter.tflite_writer.graph import Axes, Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import binary, joined
from edgepack.converter.tflite_writer.operators.reductions import reduced
from edgepack.converter.tflite_writer.operators.shaping import padded_with
from edgepack.converter.tflite_writer.write_operator import Operators, WriteOperator
from edgepack.runtime.tensors import Array

_LOWEST = float(np.finfo(np.float32).min)
_GROUPS = 6  # the version of CONV_2D that takes groups
_DILATED = 2  # the version of DEPTHWISE_CONV_2D that takes dilations
_CHANNELS_LAST: dict[int, Axes] = {3: (0, -1, 2, 1), 4: (0, 2, 3, 1)}

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a window slides: for height and width.

    Attributes:
        size: Of the window.
        stride: From one place to the next.
        dilation: From one number in the window to the next.
        before, after: What is put round the image, so that the output has its size.
        same: Whether that is TFLite's own SAME padding.
    """

    size: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    after: Pair
    same: bool

    @property
    def padded(self) -> bool:
        """Whether anything is put round the image."""
        return any(self.before) or any(self.after)


def window_of(graph: Graph, step: Step, size: Sequence[int]) -> Window:
    """Read the attributes of a window."""
    spatial = len(graph.shape(step.inputs[0])) - 2
    if spatial not in (1, 2):
        raise step.refuse(f"in {spatial} dimensions")
    if any(length < 0 for length in graph.shape(step.inputs[0])[2:]):
        raise step.refuse("over the rows")
    strides = list(step.attribute("strides", [1] * spatial))
    dilations = list(step.attribute("dilations", [1] * spatial))
    held = graph.shape(step.inputs[0])[2:]
    made = graph.shape(step.output)[2:]
    reach = [(n - 1) * d + 1 for n, d in zip(size, dilations, strict=True)]
    needed = [(m - 1) * s + r - h for m, s, r, h in zip(made, strides, reach, held, strict=True)]
    auto = step.attribute("auto_pad", "NOTSET")
    if auto == "NOTSET":
        before = list(step.attribute("pads", [0] * 2 * spatial))[:spatial]
    elif auto == "VALID":
        before = [0] * spatial
    else:
        full = [max(n, 0) for n in needed]
        before = [n // 2 if auto == "SAME_UPPER" else n - n // 2 for n in full]
    # Measured sizes tell what the end needs, whatever ceil_mode and rounding say.
    after = [max(n - b, 0) for n, b in zip(needed, before, strict=True)]
    same = all(
        m == -(-h // s) and b == max(n, 0) // 2 and a == max(n, 0) - b
        for m, h, s, b, a, n in zip(made, held, strides, before, after, needed, strict=True)
    )
    return Window(
        size=_pair(size, 1),
        stride=_pair(strides, 1),
        dilation=_pair(dilations, 1),
        before=_pair(before, 0),
        after=_pair(after, 0),
        same=same,
    )


def image(graph: Graph, step: Step) -> tuple[Tensor, Axes]:
    """The first input with channels last: (N, height, width, channels)."""
    value = graph.value(step.inputs[0])
    axes = _CHANNELS_LAST[value.rank]
    return graph.arranged(value, axes), axes


def padding_of(
    graph: Graph, tensor: Tensor, window: Window, number: float, name: str
) -> tuple[Tensor, Any]:
    """The image as the kernel wants it, and which of TFLite's paddings that means."""
    if window.same:
        return tensor, schema.Padding.SAME
    amounts = [(0, 0), *zip(window.before, window.after, strict=True), (0, 0)]
    return padded_with(graph, tensor, amounts, number, f"{name}_padded"), schema.Padding.VALID


def _pair(values: Sequence[int], missing: int) -> Pair:
    found = [int(value) for value in values]
    return (found[0], found[1]) if len(found) == 2 else (missing, found[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution.

    Attributes:
        weights: float32 (out, in of a group, height, width).
        bias: (out,).
        window: How it slides.
        padding: TFLite's.
        shape: Of the output, channels last.
        groups: Number of groups of channels that are convolved by themselves.
    """

    weights: Array
    bias: Array
    window: Window
    padding: Any
    shape: Shape
    groups: int


def _conv(graph: Graph, step: Step) -> None:
    weights = graph.static(step, 1).astype(np.float32)
    window = window_of(graph, step, weights.shape[2:])
    if weights.ndim == 3:  # a signal is an image of height 1
        weights = weights[:, :, None, :]
    tensor, axes = image(graph, step)
    tensor, padding = padding_of(graph, tensor, window, 0.0, step.output)
    layer = Layer(
        weights=weights,
        bias=graph.static(step, 2) if step.has_input(2) else np.zeros(len(weights)),
        window=window,
        padding=padding,
        shape=joined(graph.shape(step.output), axes),
        groups=step.attribute("group", 1),
    )
    write = _depthwise if layer.groups == tensor.shape[-1] != 1 else _convolved
    graph.put(step.output, write(graph, tensor, layer, step.output), axes)


def _convolved(graph: Graph, tensor: Tensor, layer: Layer, name: str) -> Tensor:
    window = layer.window
    return graph.draft.add(
        "CONV_2D",
        [
            tensor,
            graph.draft.constant(layer.weights.transpose(0, 2, 3, 1), f"{name}_weights"),
            graph.draft.bias(layer.bias, f"{name}_bias"),
        ],
        layer.shape,
        name=name,
        options=schema.Conv2DOptionsT(
            padding=layer.padding,
            strideH=window.stride[0],
            strideW=window.stride[1],
            dilationHFactor=window.dilation[0],
            dilationWFactor=window.dilation[1],
        ),
        version=1 if layer.groups == 1 else _GROUPS,
    )


def _depthwise(graph: Graph, tensor: Tensor, layer: Layer, name: str) -> Tensor:
    window = layer.window
    weights = layer.weights.transpose(1, 2, 3, 0)  # (1, height, width, out)
    return graph.draft.add(
        "DEPTHWISE_CONV_2D",
        [
            tensor,
            graph.draft.constant(weights, f"{name}_weights"),
            graph.draft.bias(layer.bias, f"{name}_bias"),
        ],
        layer.shape,
        name=name,
        options=schema.DepthwiseConv2DOptionsT(
            padding=layer.padding,
            strideH=window.stride[0],
            strideW=window.stride[1],
            depthMultiplier=weights.shape[3] // tensor.shape[3],
            dilationHFactor=window.dilation[0],
            dilationWFactor=window.dilation[1],
        ),
        version=1 if window.dilation == (1, 1) else _DILATED,
    )


def _pool_window(graph: Graph, step: Step) -> Window:
    window = window_of(graph, step, step.attribute("kernel_shape"))
    if window.dilation != (1, 1):
        raise step.refuse("with dilations")
    return window


def _pooled(
    graph: Graph, code: str, tensor: Tensor, pool: tuple[Window, Any, Shape], name: str
) -> Tensor:
    window, padding, shape = pool
    return graph.draft.add(
        code,
        [tensor],
        shape,
        name=name,
        options=schema.Pool2DOptionsT(
            padding=padding,
            strideH=window.stride[0],
            strideW=window.stride[1],
            filterHeight=window.size[0],
            filterWidth=window.size[1],
        ),
    )


def _max_pool(graph: Graph, step: Step) -> None:
    if len([name for name in step.outputs if name]) > 1:
        raise step.refuse("that gives the places too")
    window = _pool_window(graph, step)
    tensor, axes = image(graph, step)
    maker = graph.draft.makers.get(tensor)
    # 0 is as good as the lowest number where nothing is below it, and better for int8.
    number = 0.0 if maker is not None and maker.code in _NOT_NEGATIVE else _LOWEST
    tensor, padding = padding_of(graph, tensor, window, number, step.output)
    pool = (window, padding, joined(graph.shape(step.output), axes))
    graph.put(step.output, _pooled(graph, "MAX_POOL_2D", tensor, pool, step.output), axes)


def _average_pool(graph: Graph, step: Step) -> None:
    window = _pool_window(graph, step)
    tensor, axes = image(graph, step)
    shape = joined(graph.shape(step.output), axes)
    held = tensor.shape[1:3]
    counts_padding = bool(step.attribute("count_include_pad", 0))
    if window.same and not (counts_padding and window.padded):
        pool = (window, schema.Padding.SAME, shape)
        made = _pooled(graph, "AVERAGE_POOL_2D", tensor, pool, step.output)
        graph.put(step.output, made, axes)
        return
    amounts = [(0, 0), *zip(window.before, window.after, strict=True), (0, 0)]
    tensor = padded_with(graph, tensor, amounts, 0.0, f"{step.output}_padded")
    pool = (window, schema.Padding.VALID, shape)
    made = _pooled(graph, "AVERAGE_POOL_2D", tensor, pool, step.output)
    pads = list(step.attribute("pads", [0] * 2 * (len(axes) - 2)))
    declared = _pair(pads[len(pads) // 2 :], 0) if counts_padding else (0, 0)
    ahead = window.before if counts_padding else (0, 0)
    counted = [
        _counted(window, axis, shape[1 + axis], (-ahead[axis], held[axis] + declared[axis]))
        for axis in (0, 1)
    ]
    factor = window.size[0] * window.size[1] / np.outer(*counted)
    if np.any(factor != 1.0):
        constant = graph.draft.constant(factor[None, :, :, None].astype(np.float32), "shares")
        made = binary(graph, "MUL", [made, constant], shape, name=step.output)
    graph.put(step.output, made, axes)


def _counted(window: Window, axis: int, made: int, inside: Pair) -> Array:
    """How many of a window's numbers count, at each place along a dimension."""
    starts = np.arange(made) * window.stride[axis] - window.before[axis]
    ends = np.minimum(starts + window.size[axis], inside[1])
    found: Array = ends - np.maximum(starts, inside[0])
    return found


def _global_writer(code: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        value = graph.value(step.inputs[0])
        axes = value.axes
        spatial = range(2, value.rank)
        if value.tensor is None or any(axis not in axes for axis in spatial):
            axes = tuple(range(value.rank))
        tensor = graph.arranged(value, axes)
        if any(value.shape[axis] < 0 for axis in spatial):
            raise step.refuse("over the rows")
        places = [axes.index(axis) for axis in spatial]
        graph.put(step.output, reduced(graph, code, tensor, places, step.output), axes)

    return write


def _resize(graph: Graph, step: Step) -> None:
    mode = step.attribute("mode", "nearest")
    places = step.attribute("coordinate_transformation_mode", "half_pixel")
    value = graph.value(step.inputs[0])
    made = graph.shape(step.output)
    if value.rank != 4 or made[:2] != value.shape[:2] or mode not in _RESIZES:
        raise step.refuse(f"in the mode {mode} or of other dimensions than height and width")
    axes = _CHANNELS_LAST[4]
    code, options = _RESIZES[mode]
    output = graph.draft.add(
        code,
        [graph.arranged(value, axes), graph.draft.integers(made[2:], "size")],
        joined(made, axes),
        name=step.output,
        options=options(
            alignCorners=places == "align_corners", halfPixelCenters="half_pixel" in places
        ),
    )
    graph.put(step.output, output, axes)


_NOT_NEGATIVE = frozenset({"RELU", "RELU6", "LOGISTIC", "SOFTMAX"})
_RESIZES = {
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT),
    "linear": ("RESIZE_BILINEAR", schema.ResizeBilinearOptionsT),
}

OPERATORS: Operators = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "GlobalAveragePool": _global_writer("MEAN"),
    "GlobalMaxPool": _global_writer("REDUCE_MAX"),
    "MaxPool": _max_pool,
    "Resize": _resize,
}
