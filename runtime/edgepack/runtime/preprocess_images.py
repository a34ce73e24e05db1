"""Resizing, cropping and recolouring images, bit by bit the same on every machine.

A pixel of the new image is a weighted sum of pixels of the old one, first along the height, then
along the width. Pixels are squares: the centre of the i-th of n new ones lies at
(i + 0.5) * size / n - 0.5 in the old one's indices ("half-pixel centres": TensorFlow 2's
`tf.image.resize`, PyTorch's `align_corners=False`, OpenCV, Pillow). Sums are made one tap after the
other, of float32 products: no matrix product, whose order of summing differs between machines.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.bundle.pre_codec import MAX_SIDE
from edgepack.bundle.pre_steps import CenterCrop, Channels, Layout, Resize, ResizeMethod
from edgepack.runtime.errors import InputError
from edgepack.runtime.tensors import Array

_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]


def to_layout(images: Array, to: Layout) -> Array:
    """Move the channels of images to the end (NHWC) or before the height (NCHW)."""
    return images.transpose((0, 3, 1, 2) if to is Layout.NCHW else (0, 2, 3, 1))


def resize(images: Array, step: Resize) -> Array:
    """Make images of another size; the dtype stays, whole numbers are rounded half to even."""
    axis = 1 if step.layout is Layout.NHWC else 2
    height, width = images.shape[axis : axis + 2]
    if 0 in images.shape[1:] or max(height, width) > MAX_SIDE:
        raise InputError(
            f"images must have 1 to {MAX_SIDE} pixels a side, got shape {list(images.shape)}"
        )
    sizes = (step.height, step.width)
    if step.method is ResizeMethod.NEAREST:
        for offset, size in enumerate(sizes):
            chosen = _nearest(images.shape[axis + offset], size)
            images = images.take(chosen, axis + offset)
        return images
    dtype = images.dtype
    real = images
    for offset, size in enumerate(sizes):
        if real.shape[axis + offset] != size:
            taps = _taps(real.shape[axis + offset], size, step.method, step.antialias)
            real = _weighted(real, taps, axis + offset)
    if dtype.kind not in "iu" or real is images:
        return real.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(real), limits.min, limits.max).astype(dtype)


def center_crop(images: Array, step: CenterCrop) -> Array:
    """Cut out the middle of images."""
    axis = 1 if step.layout is Layout.NHWC else 2
    height, width = images.shape[axis : axis + 2]
    if height < step.height or width < step.width:
        raise InputError(
            f"images must be at least {step.height} by {step.width}, got {height} by {width}"
        )
    top, left = (height - step.height) // 2, (width - step.width) // 2
    rows, columns = slice(top, top + step.height), slice(left, left + step.width)
    return images[:, rows, columns] if axis == 1 else images[:, :, rows, columns]


def recolour(images: Array, step: Channels) -> Array:
    """Make gray images of coloured ones, or three equal channels of gray."""
    axis = 3 if step.layout is Layout.NHWC else 1
    if images.shape[axis] == step.to:
        return images
    if step.to == 3:
        return np.repeat(images, 3, axis)
    is_bytes = images.dtype == np.uint8
    weights = (19595, 38470, 7471) if is_bytes else (0.299, 0.587, 0.114)
    wide = np.dtype(np.uint32 if is_bytes else np.float32)
    if images.dtype == np.float64:
        wide = images.dtype
    gray: Array = np.zeros(images.take([0], axis).shape, wide)
    for index, weight in enumerate(weights):
        gray += images.take([index], axis).astype(wide) * wide.type(weight)
    if is_bytes:
        return ((gray + np.uint32(1 << 15)) >> np.uint32(16)).astype(np.uint8)
    return (np.rint(gray) if images.dtype.kind in "iu" else gray).astype(images.dtype)


def _nearest(old: int, new: int) -> npt.NDArray[np.intp]:
    return (2 * np.arange(new, dtype=np.intp) + 1) * old // (2 * new)


def _weighted(images: Array, taps: _Taps, axis: int) -> Array:
    indices, weights = taps
    kind = np.dtype(np.float64 if images.dtype == np.float64 else np.float32)
    shape = [1] * images.ndim
    shape[axis] = -1
    if indices.size >= images.shape[axis]:
        images = images.astype(kind, copy=False)
    total: Array | None = None
    for chosen, weight in zip(indices, weights.astype(kind), strict=True):
        # Otherwise cast once they are chosen: most rows of the image are not looked at.
        part = images.take(chosen, axis).astype(kind, copy=False)
        part *= weight.reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


@lru_cache(maxsize=32)
def _taps(old: int, new: int, method: ResizeMethod, antialias: bool) -> _Taps:
    """Which old pixels make each new one, and how much each counts.

    Returns:
        Indices and weights, (taps, new): the weights of a new pixel add up to 1.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    if method is ResizeMethod.AREA:
        begin, end = np.arange(new) * old / new, (np.arange(new) + 1) * old / new
        first = np.floor(begin)
        count = int((np.ceil(end) - first).max())
        places = first + np.arange(count)[:, None]
        raw = np.minimum(places + 1, end) - np.maximum(places, begin)
    else:
        reach = max(scale, 1.0) if antialias else 1.0
        first = np.floor(centres - 0.5 - reach) + 1
        places = first + np.arange(int(np.ceil(2 * reach)) + 1)[:, None]
        raw = 1 - np.abs(places + 0.5 - centres) / reach
        if antialias:  # what lies outside of the image does not count; else its edge is repeated
            raw = np.where((places >= 0) & (places < old), raw, 0)
    raw = np.maximum(raw, 0)
    used = raw.max(axis=1) > 0
    weights: npt.NDArray[Any] = (raw / raw.sum(axis=0))[used]
    indices = np.clip(places[used], 0, old - 1).astype(np.intp)
    return indices, weights.astype(np.float32)
