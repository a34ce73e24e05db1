"""What goes to a challenger's process and back: a job, frames of arrays, and lines of JSON.

A frame is its length in 4 bytes, little-endian, and a safetensors file; text goes into its
metadata. Both ends are this agent's own.
"""

import json
import struct
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from edgepack.runtime import safetensors
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Inputs, and what the champion answered to them."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def size_bytes(self) -> int:
        """What it weighs, roughly."""
        arrays = (*self.inputs.values(), *self.outputs.values())
        return sum(array.nbytes for array in arrays)


def render_frame(work: Work) -> bytes:
    """A frame, its length included.

    Raises:
        ValueError: It is too large, or holds what no tensor file does.
    """
    named = {f"in.{name}": array for name, array in work.inputs.items()}
    named |= {f"out.{name}": array for name, array in work.outputs.items()}
    numbers = {k: np.ascontiguousarray(v) for k, v in named.items() if v.dtype.kind in "fiub"}
    text = {
        name: json.dumps([list(array.shape), [str(item) for item in array.ravel()]])
        for name, array in named.items()
        if name not in numbers
    }
    data = safetensors.render(numbers, text)
    if len(data) > MAX_FRAME_BYTES:
        raise ValueError(f"frame must be at most {MAX_FRAME_BYTES} bytes, got {len(data)}")
    return _LENGTH.pack(len(data)) + data


def parse_frame(data: bytes) -> Work:
    """Take a frame apart; `data` is without its length."""
    arrays, text = safetensors.parse(data, what="frame")
    for name, value in text.items():
        shape, items = json.loads(value)
        array = np.empty(len(items), dtype=object)
        array[:] = items
        arrays[name] = array.reshape(shape)
    return Work(
        inputs={k[3:]: v for k, v in arrays.items() if k.startswith("in.")},
        outputs={k[4:]: v for k, v in arrays.items() if k.startswith("out.")},
    )


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame without its length; None at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None
