"""What callers give to a model with preprocessing, by steps that a recipe declares or by default.

Nothing is guessed of what pixels mean to a model: they go in as 0 to 255 unless a recipe scales
them, and a message says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_shapes import specs_after
from edgepack.bundle.pre_steps import (
    Cast,
    CenterCrop,
    Channels,
    Layout,
    LogMel,
    Reshape,
    Resize,
    Step,
    ToLayout,
    Transpose,
    Window,
)
from edgepack.converter.errors import RequestError, UnfitDataError
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.tensors import Array, datatype_of

_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawInputs:
    """What callers give, and what is made of it.

    Attributes:
        inputs: The contract's inputs.
        steps: To the model's.
        messages: What a person should know.
    """

    inputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    messages: tuple[str, ...] = ()


def declared_inputs(
    model_inputs: Sequence[TensorSpec], dataset: Dataset, steps: Sequence[Step]
) -> RawInputs:
    """The contract's inputs for steps that a recipe declares.

    An input with steps is as the data has it (an array of its name, or the only array that is not
    a column), its sizes free where the steps make the same of any size. Without steps, or for
    columns, it is as the model takes it.

    Raises:
        RequestError: The steps do not lead from the data to the model.
    """
    _check_rate(dataset, steps)
    worked_on = {step.input for step in steps}
    inputs = []
    for spec in model_inputs:
        array = _array_for(spec, dataset) if spec.name in worked_on else None
        inputs.append(spec if array is None else _raw(spec, array))
    made = _after(inputs, steps)
    for found, spec in zip(made, model_inputs, strict=True):
        if not _does(found, spec):
            raise RequestError(
                f"the steps must make {_shown(spec)} of input {spec.name!r}, they make "
                f"{_shown(found)}"
            )
    freed = [_freed(index, inputs, steps) for index in range(len(inputs))]
    return RawInputs(inputs=tuple(freed), steps=tuple(steps))


def default_steps(model_inputs: Sequence[TensorSpec], dataset: Dataset) -> RawInputs:
    """Steps from a folder's images or signals to a model, where no recipe declares any.

    Images are made gray or coloured, resized, cast and put into the model's layout; signals are
    cut or filled up. Values are never scaled. Other data, and a model that takes it as it is, get
    no steps.

    Raises:
        UnfitDataError: The model takes something else: a recipe has to say how.
    """
    array = _only_array(dataset)
    if not dataset.names or array is None or len(model_inputs) != 1:
        return RawInputs(inputs=tuple(model_inputs), steps=())
    spec = model_inputs[0]
    propose = _for_images if array.ndim == 4 else _for_signals
    steps, messages = propose(spec, array)
    if not steps:
        return RawInputs(inputs=tuple(model_inputs), steps=())
    found = declared_inputs(model_inputs, dataset, steps)
    return replace(found, messages=messages)


def _for_images(spec: TensorSpec, array: Array) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    layout = _layout_of(spec)
    _, height, width, channels = spec.shape
    if layout is Layout.NCHW:
        channels, height, width = spec.shape[1:]
    steps: list[Step] = []
    messages = []
    got = array.shape[1:]
    if channels not in (-1, got[2]):
        steps.append(Channels(input=spec.name, to=channels))
        messages.append(f"images are made {'gray' if channels == 1 else 'coloured'} for the model")
    size = (height if height > 0 else got[0], width if width > 0 else got[1])
    if size != got[:2]:
        steps.append(Resize(input=spec.name, height=size[0], width=size[1], antialias=True))
        stretched = abs(math.log(size[0] * got[1] / (size[1] * got[0]))) > 0.01
        how = "stretched" if stretched else "resized"
        messages.append(
            f"images are {how} from {got[1]} by {got[0]} to {size[1]} by {size[0]} pixels "
            "(bilinear, antialiased)"
        )
    if spec.datatype is not Datatype.UINT8:
        if spec.datatype not in (Datatype.FP16, Datatype.FP32, Datatype.FP64):
            raise UnfitDataError(
                f"input {spec.name!r} takes {spec.datatype}, the images are bytes: a recipe must "
                "say how ([[pre]])"
            )
        steps.append(Cast(input=spec.name, datatype=spec.datatype))
        messages.append(
            "pixels go into the model as 0 to 255: if it was trained on scaled ones, say so in a "
            'recipe ([[pre]] with step = "scale" or "normalize")'
        )
    if layout is Layout.NCHW:
        steps.append(ToLayout(input=spec.name, to=Layout.NCHW))
        messages.append("images are put into the model's layout, NCHW")
    return tuple(steps), tuple(messages)


def _layout_of(spec: TensorSpec) -> Layout:
    """The model's layout, by where a size of 1 or 3 stands; the last place goes first.

    Raises:
        UnfitDataError: It takes no images of bytes.
    """
    if len(spec.shape) == 4:
        if spec.shape[3] in _CHANNELS:
            return Layout.NHWC
        if spec.shape[1] in _CHANNELS:
            return Layout.NCHW
        if spec.shape[3] == -1 and spec.shape[1] == -1:
            return Layout.NHWC
    raise UnfitDataError(
        f"input {spec.name!r} takes {list(spec.shape)}, which are no images of 1 or 3 channels: a "
        "recipe must say how ([[pre]])"
    )


def _for_signals(spec: TensorSpec, array: Array) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    length = array.shape[1]
    sizes = [size for size in spec.shape[1:] if size != 1]
    if len(sizes) != 1 or spec.datatype is not Datatype.FP32:
        raise UnfitDataError(
            f"input {spec.name!r} takes {spec.datatype} {list(spec.shape)}, which is no signal: a "
            'recipe must say how ([[pre]] with step = "log-mel")'
        )
    steps: list[Step] = []
    messages = []
    wanted = sizes[0] if sizes[0] > 0 else length
    if wanted != length:
        steps.append(Window(input=spec.name, length=wanted))
        how = "cut off" if wanted < length else "filled up with silence"
        messages.append(f"signals of {length} samples are {how} to {wanted} at their end")
    if len(spec.shape) > 2:
        shape = tuple(wanted if size != 1 else 1 for size in spec.shape[1:])
        steps.append(Reshape(input=spec.name, shape=shape))
    return tuple(steps), tuple(messages)


def _array_for(spec: TensorSpec, dataset: Dataset) -> Array | None:
    array = dataset.arrays.get(spec.name)
    if array is not None and array.ndim > 1:
        return array
    return _only_array(dataset)


def _only_array(dataset: Dataset) -> Array | None:
    tensors = [array for array in dataset.arrays.values() if array.ndim > 1]
    return tensors[0] if len(tensors) == 1 else None


def _raw(spec: TensorSpec, array: Array) -> TensorSpec:
    datatype = datatype_of(array)
    if datatype is None:
        raise RequestError(f"input {spec.name!r}: data of dtype {array.dtype} has no datatype")
    if array.dtype == np.float64:
        datatype = Datatype.FP32  # what a device has; numpy's default says nothing
    return TensorSpec(name=spec.name, datatype=datatype, shape=(-1, *array.shape[1:]))


def _after(inputs: Sequence[TensorSpec], steps: Sequence[Step]) -> tuple[TensorSpec, ...]:
    try:
        return specs_after(inputs, steps)
    except ContractError as exc:
        raise RequestError(str(exc).removeprefix("contract: ")) from exc


def _freed(index: int, inputs: Sequence[TensorSpec], steps: Sequence[Step]) -> TensorSpec:
    """The input with -1 for each size of which the steps make the same, whatever it is."""
    spec = inputs[index]
    expected = specs_after(inputs, steps)[index]
    for axis in _sized_axes(spec.name, steps):
        sizes = tuple(-1 if place == axis else size for place, size in enumerate(spec.shape))
        wider = replace(spec, shape=sizes)
        try:
            made = specs_after([*inputs[:index], wider, *inputs[index + 1 :]], steps)[index]
        except ContractError:
            continue
        if made.shape == expected.shape:
            spec = wider
    return spec


def _sized_axes(name: str, steps: Sequence[Step]) -> tuple[int, ...]:
    """The axes that the first step that gives an input a size sees, if nothing moved them."""
    for step in steps:
        if step.input != name:
            continue
        if isinstance(step, Resize | CenterCrop):
            return (1, 2) if step.layout is Layout.NHWC else (2, 3)
        if isinstance(step, Window):
            return (1,)
        if isinstance(step, ToLayout | Transpose | Reshape):
            return ()
    return ()


def _check_rate(dataset: Dataset, steps: Sequence[Step]) -> None:
    for step in steps:
        if isinstance(step, LogMel) and dataset.rate_hz not in (None, step.rate):
            raise RequestError(
                f"the signals must have {step.rate} Hz as the step log-mel says, "
                f"got {dataset.rate_hz}"
            )


def _does(found: TensorSpec, spec: TensorSpec) -> bool:
    return (
        found.datatype is spec.datatype
        and len(found.shape) == len(spec.shape)
        and all(
            got == wanted or -1 in (got, wanted)
            for got, wanted in zip(found.shape[1:], spec.shape[1:], strict=True)
        )
    )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"
