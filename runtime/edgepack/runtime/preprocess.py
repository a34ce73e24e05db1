"""Applies the steps of a contract's `pre`: what callers give becomes what the model takes.

The same code runs at calibration, for the golden samples and on devices. Each sample is worked on
by itself, so that a batch gives what single samples give; and nothing is left to a library that
sums in an order of its own, so that images come out bit by bit the same on every machine (the
transform of `log-mel` may differ in the last bit of float64, and is rounded to float32).

The steps themselves are values of `edgepack.bundle.pre_steps`; shapes and datatypes are checked
before (`edgepack.bundle.pre_shapes`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgepack.bundle.contract import TensorSpec
from edgepack.bundle.pre_codec import parse_steps, render_steps
from edgepack.bundle.pre_shapes import model_inputs, specs_after
from edgepack.bundle.pre_steps import (
    Cast,
    CenterCrop,
    Channels,
    Dct,
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
from edgepack.runtime.errors import InputError
from edgepack.runtime.inputs import check_finite
from edgepack.runtime.preprocess_images import center_crop, recolour, resize, to_layout
from edgepack.runtime.preprocess_signals import dct, log_mel, window
from edgepack.runtime.tensors import DTYPES, Array

__all__ = [
    "Preparation",
    "Step",
    "apply_steps",
    "model_inputs",
    "parse_steps",
    "render_steps",
    "specs_after",
]

CHUNK_VALUES: Final = 1 << 21  # of the largest array between two steps: 16 MB in float64

_Work = Callable[[Array], Array]


class Preparation:
    """The steps of a contract, made ready once.

    Args:
        specs: The contract's inputs.
        steps: What is done to them.

    Raises:
        ContractError: A step does not fit its input.
    """

    def __init__(self, specs: Sequence[TensorSpec], steps: Sequence[Step]) -> None:
        self.outputs = specs_after(specs, steps)
        self._works: list[list[tuple[Step, _Work]]] = [
            [(step, _work(step)) for step in steps if step.input == spec.name] for spec in specs
        ]

    def apply(self, arrays: Sequence[Array]) -> list[Array]:
        """What the model takes, in the order of the inputs.

        Args:
            arrays: In the order of the inputs, checked against them.

        Raises:
            InputError: A size that the contract leaves free does not do for a step, or a value
                comes out infinite.
        """
        made = []
        for array, works, spec in zip(arrays, self._works, self.outputs, strict=True):
            if works:
                array = _in_chunks(array, works)  # noqa: PLW2901
                if array.dtype.kind == "f":
                    check_finite(array, spec)
            made.append(array)
        return made


def apply_steps(steps: Sequence[Step], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What the model takes, of what callers give.

    Args:
        steps: See `parse_steps`.
        arrays: By the contract's names, of the datatypes that it says, samples first.

    Returns:
        By the same names; arrays without steps as they are.

    Raises:
        InputError: An array does not do for a step.
    """
    return {
        name: _in_chunks(array, [(step, _work(step)) for step in steps if step.input == name])
        for name, array in arrays.items()
    }


def _in_chunks(array: Array, works: Sequence[tuple[Step, _Work]]) -> Array:
    """Apply steps to as many samples at a time as keep what lies between them small."""
    if not works:
        return array
    largest = max(_values(step, math.prod(array.shape[1:])) for step, _ in works)
    rows = max(1, CHUNK_VALUES // max(largest, 1))
    parts = [
        _through(array[begin : begin + rows], works)
        for begin in range(0, max(array.shape[0], 1), rows)
    ]
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)


def _through(array: Array, works: Sequence[tuple[Step, _Work]]) -> Array:
    for step, work in works:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what comes out is looked at
                array = work(array)
        except InputError as exc:
            raise InputError(f"input {step.input!r}, {name_of(step)}: {exc}") from exc
    return array


def _values(step: Step, values: int) -> int:
    """How many values a sample has at most in a step, roughly."""
    match step:
        case LogMel():
            frames = values // step.hop + 1
            return max(values, frames * (step.fft_length + step.mels))
        case Window(frame=int() as frame, hop=int() as hop):
            return max(values, step.length // hop * frame)
        case Resize():
            return max(values, 4 * step.height * step.width)
    return values


def _work(step: Step) -> _Work:
    match step:
        case Scale():
            return lambda array: _scale(array, step)
        case Normalize():
            return lambda array: _normalize(array, step)
        case Cast(datatype=datatype):
            return lambda array: _cast(array, DTYPES[datatype])
        case Transpose(axes=axes):
            return lambda array: array.transpose(axes)
        case ToLayout(to=to):
            return lambda array: to_layout(array, to)
        case Reshape(shape=shape):
            return lambda array: array.reshape(array.shape[0], *shape)
        case Resize():
            return lambda array: resize(array, step)
        case CenterCrop():
            return lambda array: center_crop(array, step)
        case Channels():
            return lambda array: recolour(array, step)
        case Window() | LogMel() | Dct():
            return _signal_work(step)


def _signal_work(step: Window | LogMel | Dct) -> _Work:
    if isinstance(step, LogMel):
        return log_mel(step)
    if isinstance(step, Dct):
        return lambda array: dct(array, step)
    return lambda array: window(array, step)


def _floats(array: Array) -> Array:
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _scale(array: Array, step: Scale) -> Array:
    real = _floats(array)
    scaled: Array = real * real.dtype.type(step.factor)
    scaled += real.dtype.type(step.offset)
    return scaled


def _normalize(array: Array, step: Normalize) -> Array:
    real = _floats(array)
    channels = array.shape[step.axis]
    if len(step.mean) not in (1, channels):
        raise InputError(f"axis {step.axis} must have {len(step.mean)} indices, got {channels}")
    shape = [1] * array.ndim
    shape[step.axis] = -1
    centred: Array = real - np.array(step.mean, real.dtype).reshape(shape)
    centred /= np.array(step.std, real.dtype).reshape(shape)
    return centred


def _cast(array: Array, dtype: "np.dtype[Any]") -> Array:
    if dtype.kind == "b":
        return np.asarray(array != 0)
    if dtype.kind not in "iu" or array.dtype.kind == "b":
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"values must be finite to be cast to {dtype}")
        # A float type may not hold the limit itself: 2**63 - 1 is 2**63 in float64.
        wide = np.rint(array.astype(np.float64))
        over = wide >= limits.max
        under = wide <= limits.min
        cast = np.where(over | under, 0, wide).astype(dtype)
        return np.where(over, dtype.type(limits.max), np.where(under, dtype.type(limits.min), cast))
    given = np.iinfo(array.dtype)
    low, high = max(limits.min, given.min), min(limits.max, given.max)
    return np.clip(array, low, high).astype(dtype)
