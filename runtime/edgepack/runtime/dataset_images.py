"""Image files to one array. Pillow is imported here, and only when a folder of images is read.

Pixels are taken as they are stored: a turn that a camera noted (EXIF) is not made, as training
pipelines do not make it either. Transparency is dropped.
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.pre_codec import MAX_SIDE
from edgepack.bundle.pre_steps import Resize
from edgepack.runtime.dataset_folder import FolderDigest, FolderFile, check_size
from edgepack.runtime.errors import DatasetError, one_line
from edgepack.runtime.preprocess_images import resize

_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_GRAY: Final = frozenset({"1", "L", "LA", "La"})
_DEEP_GRAY: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})

_Bytes = NDArray[np.uint8]


def read_images(
    files: Sequence[FolderFile],
    digests: FolderDigest,
    *,
    size: tuple[int, int] | None,
    mixed_size: tuple[int, int] | None,
    max_pixels: int = MAX_SIDE * MAX_SIDE,
) -> _Bytes:
    """Read images as uint8 (N, H, W, C): C is 1 if all of them are gray, else 3.

    Args:
        files: Where they are.
        digests: Reads them.
        size: Height and width; images of another size are resized (bilinear, antialiased).
        mixed_size: The same, if they have several sizes and `size` is None.
        max_pixels: An image of more is refused before it is decoded.

    Raises:
        DatasetError: Pillow is not installed; an image is damaged, too large or of another size.
    """
    image_module = _pillow(files[0])
    looks = [_look(image_module, file) for file in files]
    for file, ((height, width), _) in zip(files, looks, strict=True):
        if height * width > max_pixels:
            raise DatasetError(
                f"{file.name} must have at most {max_pixels} pixels, got {width} by {height}"
            )
    if size is None:
        size = looks[0][0]
        if mixed_size is not None and any(found != size for found, _ in looks):
            size = mixed_size
            looks = [(size, is_gray) for _, is_gray in looks]
        for file, (found, _) in zip(files, looks, strict=True):
            if found != size:
                raise DatasetError(
                    "images must have one size, or a size to be resized to must be given; got "
                    f"{files[0].name} {_by(size)} and {file.name} {_by(found)}"
                )
    channels = 1 if all(is_gray for _, is_gray in looks) else 3
    check_size(len(files), size[0] * size[1] * channels, "images", "; resize them to less")
    array = np.empty((len(files), *size, channels), dtype=np.uint8)
    step = Resize(input="image", height=size[0], width=size[1], antialias=True)
    for row, file in enumerate(files):
        pixels = _decode(image_module, file, digests.read(file), channels)
        array[row] = pixels if pixels.shape[:2] == size else resize(pixels[None], step)[0]
    return array


def _pillow(file: FolderFile) -> Any:  # noqa: ANN401  (a package that is not always there)
    try:
        from PIL import Image
    except ImportError as exc:
        raise DatasetError(
            f"{file.name} is an image, which needs Pillow: pip install 'edgepack[data]' "
            "('edgepack[agent-images]' on a device)"
        ) from exc
    return Image


def _look(image_module: Any, file: FolderFile) -> tuple[tuple[int, int], bool]:  # noqa: ANN401
    """Height and width, and whether it is gray: from the header, nothing is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: they are counted below
            with image_module.open(file.path, formats=_FORMATS) as image:
                width, height, mode = image.width, image.height, image.mode
    except Exception as exc:  # decoders raise whatever they like
        raise DatasetError(f"{file.name} is a damaged image{_why(exc)}") from exc
    if not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise DatasetError(
            f"{file.name} must have 1 to {MAX_SIDE} pixels a side, got {width} by {height}"
        )
    if mode == "F":
        raise DatasetError(f"{file.name} must be an image of bytes, got floating-point pixels")
    return (height, width), mode in _GRAY or mode in _DEEP_GRAY


def _decode(image_module: Any, file: FolderFile, data: bytes, channels: int) -> _Bytes:  # noqa: ANN401
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with image_module.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.mode in _DEEP_GRAY:  # 16 bits, which Pillow would cut off at 255
                    deep = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1) >> 8
                    return np.repeat(deep.astype(np.uint8)[:, :, None], channels, axis=2)
                shown = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as exc:  # decoders raise whatever they like
        raise DatasetError(f"{file.name} is a damaged image{_why(exc)}") from exc
    return shown.reshape(*shown.shape[:2], channels)


def _why(exc: Exception) -> str:
    # What Pillow says of a file that it does not know is the file's name, and no more.
    return "" if type(exc).__name__ == "UnidentifiedImageError" else f": {one_line(exc)}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} by {size[0]}"
