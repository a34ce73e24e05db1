"""WAV files to one array, without a library.

The standard library's reader takes neither 24-bit files as recorders write them (Python 3.11) nor
floats. The format is RIFF chunks: Microsoft and IBM, Multimedia Programming Interface (1991), and
WAVEFORMATEXTENSIBLE.
"""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.dataset_folder import FolderDigest, FolderFile, check_size
from edgepack.runtime.errors import DatasetError

MAX_CHANNELS: Final = 64
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TO_THE_END: Final = 0xFFFFFFFF  # what a program that writes to a pipe says
_FORMAT_BYTES: Final = 16
_SUBFORMAT_AT: Final = 24

_Signal = NDArray[np.float32]


def read_signals(
    files: Sequence[FolderFile], digests: FolderDigest, samples: int | None
) -> tuple[NDArray[np.float32], int]:
    """Read signals as float32 (N, T) in -1..1, channels mixed to one, and their rate in Hz.

    Args:
        files: Where they are.
        digests: Reads them.
        samples: T; longer signals are cut off, shorter ones filled up with zeros at the end. By
            default the longest.

    Raises:
        DatasetError: A file is damaged or of another encoding; rates differ; all is too much.
    """
    signals: list[_Signal] = []
    rate_hz = total = 0
    for file in files:
        rate, signal = parse_wav(digests.read(file), what=file.name)
        if signals and rate != rate_hz:
            raise DatasetError(
                f"all signals must have one rate, got {files[0].name} {rate_hz} Hz and "
                f"{file.name} {rate} Hz"
            )
        rate_hz = rate
        signals.append(signal if samples is None else signal[:samples].copy())
        total += signals[-1].nbytes
        check_size(1, total, "folder of signals", "; cut them to a length")
    length = max(map(len, signals)) if samples is None else samples
    check_size(len(signals), 4 * length, "signals", "; cut them to a length")
    array = np.zeros((len(signals), length), dtype=np.float32)
    for row, signal in enumerate(signals):
        array[row, : len(signal)] = signal
    return array, rate_hz


def parse_wav(data: bytes, *, what: str) -> tuple[int, _Signal]:
    """Read one WAV file.

    Args:
        data: The file.
        what: Its name, for the error.

    Returns:
        The rate in Hz, and the signal, float32 (T,): whole numbers are divided by what -1 is.

    Raises:
        DatasetError: It is damaged, empty, or neither PCM of 8, 16, 24 or 32 bits nor float32.
    """
    chunks = _chunks(data, what)
    layout, samples = chunks.get(b"fmt "), chunks.get(b"data")
    if layout is None or samples is None or len(layout) < _FORMAT_BYTES:
        raise DatasetError(f"{what} is a damaged WAV file: it has no format or no samples")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", layout[:_FORMAT_BYTES])
    if tag == _EXTENSIBLE and len(layout) >= _SUBFORMAT_AT + 2:
        (tag,) = struct.unpack_from("<H", layout, _SUBFORMAT_AT)
    if (tag, bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)}:
        raise DatasetError(
            f"{what} must be WAV of 8, 16, 24 or 32 bits PCM or float32, got encoding {tag} of "
            f"{bits} bits"
        )
    if not 1 <= channels <= MAX_CHANNELS or align != channels * bits // 8 or rate == 0:
        raise DatasetError(
            f"{what} is a damaged WAV file: {channels} channels, {align} bytes a sample, {rate} Hz"
        )
    whole = samples[: len(samples) // align * align]
    if not whole:
        raise DatasetError(f"{what} has no samples")
    values = _floats(whole) if tag == _FLOAT else _decoded(whole, bits)
    signal = values.reshape(-1, channels)
    mixed = signal[:, 0] if channels == 1 else signal.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mixed).all():
        raise DatasetError(f"{what}: samples must be finite")
    return rate, mixed.astype(np.float32)


def _chunks(data: bytes, what: str) -> dict[bytes, bytes]:
    """The first chunk of each name."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DatasetError(f"{what} is not a WAV file")
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        name = data[place : place + 4]
        (size,) = struct.unpack_from("<I", data, place + 4)
        begin = place + 8
        if size == _TO_THE_END:
            size = len(data) - begin
        if begin + size > len(data):
            raise DatasetError(f"{what} is a damaged WAV file: it is cut off")
        found.setdefault(name, data[begin : begin + size])
        place = begin + size + size % 2
    return found


def _floats(data: bytes) -> NDArray[np.float64]:
    return np.frombuffer(data, "<f4").astype(np.float64)


def _decoded(data: bytes, bits: int) -> NDArray[np.float64]:
    if bits == 8:  # unsigned, unlike the others
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3).astype("<u4")
        joined = parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24
        data, bits = joined.tobytes(), 32
    values: NDArray[np.float64] = np.frombuffer(data, f"<i{bits // 8}").astype(np.float64)
    values /= 2 ** (bits - 1)
    return values
