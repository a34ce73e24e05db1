"""What the steps of `pre` make of datatypes and shapes: from a contract's inputs to the model's."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from edgepack.bundle.contract import Contract, Datatype, Nonfinite, TensorSpec
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_codec import parse_steps
from edgepack.bundle.pre_steps import (
    Cast,
    CenterCrop,
    Channels,
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
    made = replace(spec, **_changes(spec, step), unit=None, minimum=None, maximum=None)
    if len(made.feature_names) and made.shape[-1:] != spec.shape[-1:]:
        made = replace(made, feature_names=())
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


def _changes(spec: TensorSpec, step: Step) -> dict[str, Any]:
    match step:
        case Scale():
            return {"datatype": _as_float(spec)}
        case Normalize():
            return {"datatype": _as_float(spec), "shape": _normalized(spec.shape, step)}
        case Cast(datatype=datatype):
            return {"datatype": datatype}
        case Transpose(axes=axes):
            if len(axes) != len(spec.shape):
                raise _UnfitError(f"axes must be {len(spec.shape)}, got {list(axes)}")
            return {"shape": tuple(spec.shape[axis] for axis in axes), "feature_names": ()}
        case ToLayout(to=to):
            return {"shape": _moved(_image(spec), to), "feature_names": ()}
        case Reshape(shape=shape):
            _same_number(spec.shape[1:], shape)
            return {"shape": (spec.shape[0], *shape), "feature_names": ()}
        case Resize() | CenterCrop():
            return {"shape": _resized(_image(spec), step)}
        case Channels():
            return {"shape": _recoloured(_image(spec), step), "feature_names": ()}
        case Window():
            return {"shape": _windowed(spec.shape, step)}
        case LogMel():
            shape = _log_mel(spec.shape, step)
            return {"shape": shape, "datatype": Datatype.FP32, "feature_names": ()}


def _as_float(spec: TensorSpec) -> Datatype:
    return Datatype.FP64 if spec.datatype is Datatype.FP64 else Datatype.FP32


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


def _same_number(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if -1 in before:
        raise _UnfitError(f"a sample's dimensions must be known, got {[-1, *before]}")
    if math.prod(before) != math.prod(after):
        raise _UnfitError(f"a sample must have {math.prod(before)} values, got {list(after)}")
