# ruff: noqa: N802, ANN401  (flatbuffers names its methods so, and ships no types)
"""Writes flatbuffers in which equal vectors stand once, and constants where engines want them."""

import hashlib
from typing import Any, Final

import flatbuffers
import numpy as np

_ALIGNMENT: Final = 16  # of constants: TFLite's schema asks for it, and the generated code forgets


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # it ships no types
    """A builder that remembers its vectors.

    int8 files have a zero point of 8 bytes for every channel of every layer, and all are zero: on a
    small network that was a fifth of the file.
    """

    def __init__(self, initial_bytes: int) -> None:
        """Begin with room for so many bytes."""
        super().__init__(initial_bytes)
        self._made: dict[tuple[str, bytes], Any] = {}

    def CreateNumpyVector(self, x: Any) -> Any:
        """Write a vector, or find the one of the same type that holds the same."""
        key = (x.dtype.str, hashlib.sha256(np.ascontiguousarray(x).tobytes()).digest())
        if key not in self._made:
            if x.dtype == np.uint8 and x.size >= _ALIGNMENT:
                self._made[key] = self._constant(x.tobytes())
            else:
                self._made[key] = super().CreateNumpyVector(x)
        return self._made[key]

    def _constant(self, content: bytes) -> Any:
        self.StartVector(1, len(content), _ALIGNMENT)
        self.head -= len(content)
        self.Bytes[self.head : self.head + len(content)] = content
        self.vectorNumElems = len(content)
        return self.EndVector()
