"""Between the contract's real values and a file's quantized integers.

real = (q - zero_point) * scale, per tensor. Rounding is half to even, as ONNX's QuantizeLinear
says; TFLite's own rounding differs from it by one step only where a value lies exactly between.
"""

from typing import Any

import numpy as np

from edgepack.runtime.tensors import Array


def quantize(
    real: Array,
    scale: float,
    zero_point: int,
    dtype: np.dtype[np.signedinteger[Any] | np.unsignedinteger[Any]],
) -> Array:
    """Turn finite real values into integers of `dtype`, saturating at its limits.

    >>> quantize(np.array([0.0, 0.5, 99.0]), 0.5, 3, np.dtype("i1")).tolist()
    [3, 4, 127]
    """
    limits = np.iinfo(dtype)
    steps = np.rint(real.astype(np.float64) / scale) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), dtype=dtype)


def dequantize(steps: Array, scale: float, zero_point: int) -> Array:
    """Turn a file's integers into real values, float32.

    >>> dequantize(np.array([3, 4, 127], dtype="i1"), 0.5, 3).tolist()
    [0.0, 0.5, 62.0]
    """
    real: Array = (steps.astype(np.float64) - zero_point) * scale
    return np.asarray(real, dtype=np.float32)
