"""What the steps of `pre` make of datatypes and shapes: from a contract's inputs to the model's."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgepack.bundle.contract import Contract, Datatype, Nonfinite, TensorSpec
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_codec import MAX_MELS, MAX_SIDE, parse_steps
from edgepack.bundle.pre_steps import (
    Cast,
    CenterCrop,
    Channels,
    Dct,
    Layout,
    LogMel,
    Normalize,
    Reshape,
    Resize,
    Scale,
    Step,
    ToLayout,
    Transpose,
    Window,
    name_of,
)

MAX_SAMPLE_VALUES: Final = 1 << 26  # of one sample, before and after every step
_FLOATS: Final = (Datatype.FP16, Datatype.FP32, Datatype.FP64)
_IMAGE_DIMENSIONS: Final = 4
_PIXELS: Final = (*_FLOATS, Datatype.UINT8, Datatype.INT8, Datatype.UINT16, Datatype.INT16)
_WHOLE: Final = {  # smallest and largest value
    **{
        Datatype(f"INT{bits}"): (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for bits in (8, 16, 32, 64)
    },
    **{Datatype(f"UINT{bits}"): (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    Datatype.BOOL: (0, 1),
}
_MOVES: Final = (Transpose, ToLayout, Reshape)  # they look at no value


class _UnfitError(Exception):
    """A step cannot be applied to such a tensor."""


def model_inputs(contract: Contract) -> tuple[TensorSpec, ...]:
    """The tensors that the variants of a contract bind: its inputs after the steps of `pre`.

    Raises:
        ContractError: The steps do not fit the inputs.
    """
    if not contract.pre:
        return contract.inputs
    return specs_after(contract.inputs, parse_steps(contract.pre))


def specs_after(specs: Sequence[TensorSpec], steps: Sequence[Step]) -> tuple[TensorSpec, ...]:
    """What inputs become; names and order stay.

    Raises:
        ContractError: A step names no input, or does not fit it; `.problems` names each input's
            first.
    """
    found = {spec.name: spec for spec in specs}
    problems: list[str] = []
    broken: set[str] = set()
    for index, step in enumerate(steps):
        if step.input in broken:
            continue
        try:
            found[step.input] = spec_after(found, step)
        except _UnfitError as exc:
            broken.add(step.input)
            problems.append(f"pre[{index}] {name_of(step)}: {exc}")
    if problems:
        raise ContractError(*problems)
    return tuple(found.values())


def spec_after(specs: dict[str, TensorSpec], step: Step) -> TensorSpec:
    """What one step makes of the input that it names."""
    spec = specs.get(step.input)
    if spec is None:
        names = ", ".join(repr(name[:64]) for name in list(specs)[:5])
        raise _UnfitError(f"input must be one of {names}, got {step.input[:64]!r}")
    if not spec.shape:  # the rules of the contract say it; here nothing may break over it
        raise _UnfitError(f"input {spec.name[:64]!r} must have dimensions")
    _check_values(spec, step)
    made = replace(
        spec,
        datatype=_datatype(spec, step),
        shape=_shape(spec, step),
        feature_names=spec.feature_names if isinstance(step, Scale | Normalize | Cast) else (),
        unit=None,
        minimum=None,
        maximum=None,
    )
    if math.prod(size for size in made.shape[1:] if size > 0) > MAX_SAMPLE_VALUES:
        raise _UnfitError(
            f"a sample must have at most {MAX_SAMPLE_VALUES} values, got {list(made.shape)}"
        )
    return made


def _check_values(spec: TensorSpec, step: Step) -> None:
    if spec.datatype is Datatype.BYTES and not isinstance(step, _MOVES):
        raise _UnfitError(f"input {spec.name[:64]!r} must be numbers, got text")
    keeps_nan = isinstance(step, (*_MOVES, Scale, Normalize, Window)) or (
        isinstance(step, Cast) and step.datatype in _FLOATS
    )
    if spec.datatype in _FLOATS and spec.nonfinite is Nonfinite.NAN and not keeps_nan:
        raise _UnfitError(f"input {spec.name[:64]!r} takes NaN, which this step cannot keep")
    if isinstance(step, Cast) and step.datatype is Datatype.BYTES:
        raise _UnfitError("datatype must be of numbers, got BYTES")
    if isinstance(step, Resize | Channels) and spec.datatype not in _PIXELS:
        raise _UnfitError(f"images must be of 8 or 16 bits or floats, got {spec.datatype}")
    if isinstance(step, Window) and spec.datatype in _WHOLE:
        low, high = _WHOLE[spec.datatype]
        if not low <= step.value <= high or step.value != int(step.value):
            raise _UnfitError(f"value must fit {spec.datatype}, got {step.value:g}")


def _datatype(spec: TensorSpec, step: Step) -> Datatype:
    if isinstance(step, Cast):
        return step.datatype
    if isinstance(step, LogMel):
        return Datatype.FP32
    if isinstance(step, Scale | Normalize | Dct):
        return Datatype.FP64 if spec.datatype is Datatype.FP64 else Datatype.FP32
    return spec.datatype


def _shape(spec: TensorSpec, step: Step) -> tuple[int, ...]:
    shape = spec.shape
    match step:
        case Scale() | Cast():
            return shape
        case Normalize():
            return _normalized(shape, step)
        case Transpose(axes=axes):
            if len(axes) != len(shape):
                raise _UnfitError(f"axes must be {len(shape)}, got {list(axes)}")
            return tuple(shape[axis] for axis in axes)
        case ToLayout(to=to):
            return _moved(_image(spec), to)
        case Reshape(shape=wanted):
            _same_number(shape[1:], wanted)
            return (shape[0], *wanted)
        case Resize() | CenterCrop():
            return _resized(_image(spec), step)
        case Channels():
            return _recoloured(_image(spec), step)
        case Window():
            return _windowed(shape, step)
        case LogMel():
            return _log_mel(shape, step)
        case Dct(keep=keep):
            return _transformed(shape, keep)


def _normalized(shape: tuple[int, ...], step: Normalize) -> tuple[int, ...]:
    axis = step.axis if step.axis > 0 else len(shape) - 1
    if not 1 <= axis < len(shape):
        raise _UnfitError(f"axis must be one of {len(shape)} and not the batch, got {step.axis}")
    if len(step.mean) == 1 or shape[axis] == len(step.mean):
        return shape
    if shape[axis] > 0:
        raise _UnfitError(
            f"mean and std must have 1 or {shape[axis]} numbers (axis {axis}), got {len(step.mean)}"
        )
    return (*shape[:axis], len(step.mean), *shape[axis + 1 :])


def _image(spec: TensorSpec) -> tuple[int, ...]:
    if len(spec.shape) != _IMAGE_DIMENSIONS:
        raise _UnfitError(
            f"input {spec.name[:64]!r} must have 4 dimensions (images), got {list(spec.shape)}"
        )
    return spec.shape


def _moved(shape: tuple[int, ...], to: Layout) -> tuple[int, ...]:
    batch, first, second, third = shape
    return (batch, third, first, second) if to is Layout.NCHW else (batch, second, third, first)


def _resized(shape: tuple[int, ...], step: Resize | CenterCrop) -> tuple[int, ...]:
    height = 1 if step.layout is Layout.NHWC else 2
    got = shape[height : height + 2]
    wanted = (step.height, step.width)
    if max(got) > MAX_SIDE:  # what lies between rows and columns would be too large
        raise _UnfitError(f"images must have at most {MAX_SIDE} pixels a side, got {list(shape)}")
    crops = isinstance(step, CenterCrop)
    if crops and any(0 < size < want for size, want in zip(got, wanted, strict=True)):
        raise _UnfitError(f"images must be at least {wanted[0]} by {wanted[1]}, got {list(shape)}")
    return (*shape[:height], *wanted, *shape[height + 2 :])


def _recoloured(shape: tuple[int, ...], step: Channels) -> tuple[int, ...]:
    axis = 3 if step.layout is Layout.NHWC else 1
    if shape[axis] not in (1, 3):
        raise _UnfitError(f"images must have 1 or 3 channels (axis {axis}), got {list(shape)}")
    return (*shape[:axis], step.to, *shape[axis + 1 :])


def _windowed(shape: tuple[int, ...], step: Window) -> tuple[int, ...]:
    if len(shape) not in (2, 3):
        raise _UnfitError(f"a signal must be (N, T) or (N, T, C), got {list(shape)}")
    if step.frame is None or step.hop is None:
        return (shape[0], step.length, *shape[2:])
    frames = 1 + (step.length - step.frame) // step.hop
    return (shape[0], frames, step.frame, *shape[2:])


def _log_mel(shape: tuple[int, ...], step: LogMel) -> tuple[int, ...]:
    if len(shape) != 2:
        raise _UnfitError(f"a signal must be (N, T), got {list(shape)}")
    samples = shape[1]
    if samples < 0:
        return (shape[0], -1, step.mels)
    if samples < step.frame:
        raise _UnfitError(f"a signal must have at least {step.frame} samples, got {samples}")
    return (shape[0], 1 + (samples - step.frame) // step.hop, step.mels)


def _transformed(shape: tuple[int, ...], keep: int) -> tuple[int, ...]:
    if len(shape) < 2 or not keep <= shape[-1] <= MAX_MELS:
        raise _UnfitError(
            f"the last dimension must have {keep} (keep) to {MAX_MELS} values, got {list(shape)}"
        )
    return (*shape[:-1], keep)


def _same_number(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if -1 in before:
        raise _UnfitError(f"a sample's dimensions must be known, got {[-1, *before]}")
    if math.prod(before) != math.prod(after):
        raise _UnfitError(f"a sample must have {math.prod(before)} values, got {list(after)}")
