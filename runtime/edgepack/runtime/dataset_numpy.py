"""npy and npz files, with every size checked before memory is asked for and no pickle ever."""

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format
from numpy.typing import NDArray

from edgepack.runtime.errors import DatasetError

MAX_ARRAYS = 4096
_npy: Any = numpy.lib.format  # ships no types in numpy 1
_KINDS = "biufUS"
# numpy reads the header with Python's own tokenizer and parser.
_DAMAGED = (
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)


def read_npy(path: Path) -> NDArray[Any]:
    """Read one array of at least one dimension.

    Raises:
        DatasetError: It is damaged, holds Python objects, or says it is larger than it is.
    """
    try:
        with path.open("rb") as file:
            return _read_array(file, path.stat().st_size, path.name)
    except OSError as exc:
        raise DatasetError(f"data {path.name} cannot be read: {exc.strerror}") from exc


def read_npz(path: Path, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Read every array of an npz file; arrays without a dimension are left out.

    Args:
        path: The file.
        max_bytes: Bound on the sum of the arrays' sizes after decompression, in bytes.

    Raises:
        DatasetError: It is damaged, holds Python objects, is not an npz, or is too large.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total_bytes = sum(member.file_size for member in members)
            if len(members) > MAX_ARRAYS or total_bytes > max_bytes:
                raise DatasetError(
                    f"{path.name} must hold at most {MAX_ARRAYS} arrays and {max_bytes} bytes, "
                    f"got {len(members)} and {total_bytes}"
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    raise DatasetError(f"{path.name} is a zip file and not an npz: {name[:80]!r}")
                with archive.open(member) as file:
                    data = file.read(member.file_size + 1)
                array = _read_array(io.BytesIO(data), len(data), f"{path.name}/{name}")
                if array.ndim:
                    arrays[name] = array
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DatasetError(f"{path.name} is a damaged npz: {str(exc)[:120]}") from exc
    except OSError as exc:
        raise DatasetError(f"data {path.name} cannot be read: {exc.strerror or exc}") from exc
    return arrays


def _read_array(file: IO[bytes], size_bytes: int, what: str) -> NDArray[Any]:
    try:
        version = _npy.read_magic(file)
        read_header = (
            _npy.read_array_header_1_0 if version == (1, 0) else _npy.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if dtype.kind not in _KINDS:
            raise DatasetError(f"{what} must hold numbers or text, got dtype {dtype}")
        if any(size < 0 for size in shape):
            raise DatasetError(f"{what} is damaged: shape {shape}")
        needed_bytes = math.prod(shape) * dtype.itemsize
        left_bytes = size_bytes - file.tell()
        if needed_bytes > left_bytes:
            raise DatasetError(
                f"{what} is truncated: its header says {needed_bytes} bytes, got {left_bytes}"
            )
        file.seek(0)
        array: NDArray[Any] = _npy.read_array(file, allow_pickle=False)
    except _DAMAGED as exc:
        raise DatasetError(f"{what} is a damaged npy: {str(exc)[:120]}") from exc
    return _as_text(array, what) if array.dtype.kind in "US" else array


def _as_text(array: NDArray[Any], what: str) -> NDArray[Any]:
    try:
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        text = array.astype(object)
        "".join(map(str, text.ravel().tolist())).encode()  # lone surrogates
    except (UnicodeError, SystemError) as exc:  # the latter of numpy, for what is no character
        raise DatasetError(f"{what} must hold UTF-8 text, got other bytes") from exc
    return text
