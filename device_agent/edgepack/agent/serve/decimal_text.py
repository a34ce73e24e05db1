"""Many numbers of a JSON list at once: eight digits in one multiplication, numbers side by side.

Python's parser takes 0.2 µs for each number with a fraction; an image has 150,000 of them. Here the
plain ones (a sign, up to 8 digits, a point, up to 19 digits in all) become an array directly.
Whatever else there is, wrong JSON among it, is left to the ordinary parser, whose result and whose
errors are the same.

Source of the multiplication: W. Muła, D. Lemire and others, "parsing series of integers with SIMD"
and "fast_float" (2021): a word of eight digits is folded in pairs. Of the quotient: W. D. Clinger,
"How to read floating point numbers accurately", PLDI 1990: an integer below 2^53 divided by a power
of ten up to 10^22 is rounded once, hence correctly.
"""

import math
import re
from typing import Final

import numpy as np

from edgepack.runtime.tensors import Array

_COMMA, _DOT, _MINUS, _ZERO, _SPACE = 44, 46, 45, 48, 32
_WORD: Final = 8
_MOST_DIGITS: Final = 19  # what an unsigned 64-bit integer surely holds
_EXACT: Final = 1 << 53
_DROPPED_BITS: Final = 52 - 23  # of a float64's fraction, by float32
_POWERS: Final = np.array([10**n for n in range(_MOST_DIGITS + 1)], dtype=np.uint64)
_UNUSUAL: Final = (b"+", b"\n", b"\t", b"\r")
_MOST_POWERS: Final = 2000  # of numbers with an exponent: very small ones among others
_NUMBER: Final = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?[eE]-?[0-9]{1,4}")
# Keeps the last n bytes of a little-endian word.
_LAST: Final = np.array(
    [((1 << 64) - 1) >> (8 * (8 - n)) << (8 * (8 - n)) if n else 0 for n in range(9)],
    dtype=np.uint64,
)


def parse_numbers(
    text: bytes, shape: tuple[int, ...], dtype: "np.dtype[np.generic]"
) -> Array | None:
    """Parse the text of a list, flat or nested as the shape is.

    Args:
        text: From "[" to "]".
        shape: How many numbers there must be, and how they may be nested.
        dtype: A float, or an integer of 32 bits or more.

    Returns:
        A flat array, or None where the ordinary parser is to look at the text.
    """
    whole = dtype.kind in "iu"
    if whole and dtype.itemsize < 4:
        return None
    plain = _without_nesting(text, shape)
    if plain is None or any(sign in plain for sign in _UNUSUAL):
        return None
    powers: dict[int, float] = {}
    if b"e" in plain or b"E" in plain:
        taken = None if whole else _without_powers(plain)
        if taken is None:
            return None
        plain, powers = taken
    found = _parse(plain, math.prod(shape), exact=dtype.itemsize != 4, whole=whole)
    if found is None or (whole and dtype.kind == "u" and found.min(initial=0) < 0):
        return None
    for place, number in powers.items():
        found[place] = number
    with np.errstate(over="ignore"):  # what overflows becomes inf, which predict refuses
        return found.astype(dtype, copy=False)


def _without_powers(text: bytes) -> tuple[bytes, dict[int, float]] | None:
    """The text with 0 for each number that has an exponent, and those by their place."""
    parts: list[bytes] = []
    found: dict[int, float] = {}
    done = place = 0
    for match in re.finditer(rb"[eE]", text):
        start, end = text.rfind(b",", 0, match.start()) + 1, text.find(b",", match.end())
        end = len(text) if end < 0 else end
        token = text[start:end].removeprefix(b" ")
        if len(found) >= _MOST_POWERS or not _NUMBER.fullmatch(token) or start < done:
            return None
        before = text[done:start]
        place += before.count(b",")
        found[place] = float(token)
        parts += [before, b"0"]
        done = end
    return b"".join([*parts, text[done:]]), found


def _without_nesting(text: bytes, shape: tuple[int, ...]) -> bytes | None:
    """The numbers with commas between them; None where the nesting is not the shape's."""
    if not text.startswith(b"[") or not text.endswith(b"]") or 0 in shape:
        return None
    inner = text[1:-1]
    if b"[" not in inner:
        return inner
    text = text.replace(b", ", b",")
    skeleton = b""
    for size in reversed(shape):
        skeleton = b"[" + b",".join([skeleton] * size) + b"]"
    if text.translate(None, b"0123456789.-+eE") != skeleton:
        return None
    # no number stands outside of the innermost lists
    opened, closed = text.count(b"["), text.count(b"]")
    if text.count(b",[") + _pairs(text, b"[") + 1 != opened:
        return None
    if text.count(b"],") + _pairs(text, b"]") + 1 != closed:
        return None
    return text.translate(None, b"[]")


def _pairs(text: bytes, sign: bytes) -> int:
    """How often the sign follows itself."""
    found = np.frombuffer(text, np.uint8) == sign[0]
    return int(np.count_nonzero(found[1:] & found[:-1]))


def _parse(text: bytes, count: int, *, exact: bool, whole: bool) -> Array | None:
    # gathers reach before the first number: commas there end what is not part of it
    chars = np.frombuffer(b"," * (3 * _WORD) + text + b",", dtype=np.uint8)
    ends = np.flatnonzero(chars == _COMMA)[3 * _WORD :]
    if len(ends) != count:
        return None
    starts = np.empty_like(ends)
    starts[0] = 3 * _WORD
    starts[1:] = ends[:-1] + 1
    spaced = chars[starts] == _SPACE  # `json.dumps` leaves one behind each comma
    if np.count_nonzero(chars == _SPACE) != np.count_nonzero(spaced):
        return None
    starts += spaced
    negative = chars[starts] == _MINUS
    if np.count_nonzero(chars == _MINUS) != np.count_nonzero(negative):
        return None
    starts += negative
    dots = _dots(chars, starts, ends)
    if dots is None or (whole and not np.array_equal(dots, ends)):
        return None
    before = dots - starts
    after = np.maximum(ends - dots - 1, 0)
    if (
        before.min() < 1
        or before.max() > _WORD
        or (before + after).max() > _MOST_DIGITS
        or bool(((after == 0) & (dots < ends)).any())
        or bool(((before > 1) & (chars[starts] == _ZERO)).any())
    ):
        return None
    if before.max() == 1:
        numbers: Array = (chars[starts] - np.uint8(_ZERO)).astype(np.uint64)
    else:
        numbers = _digits(chars, dots, before)
    if not np.array_equal(dots, ends):
        numbers *= _POWERS[after]
        for place in range(0, int(after.max()), _WORD):
            part = _digits(chars, ends - place, np.clip(after - place, 0, _WORD))
            numbers += part * _POWERS[place] if place else part
    if whole:
        signed = numbers.astype(np.int64)
        return np.where(negative, -signed, signed)
    if exact and int(numbers.max()) > _EXACT:
        return None
    floats = numbers.astype(np.float64)
    floats /= _POWERS[after].astype(np.float64)
    if not exact and _is_close_to_a_tie(floats, int(numbers.max())):
        return None
    return np.negative(floats, out=floats, where=negative)


def _is_close_to_a_tie(floats: Array, largest: int) -> bool:
    """Whether rounding once more, to float32, could go the wrong way for one of them.

    Beyond 2^53 a quotient may be off by the last bit, which matters halfway between two float32.
    """
    if largest <= _EXACT:
        return False
    below = floats.view(np.int64) & ((1 << _DROPPED_BITS) - 1)
    return bool((np.abs(below - (1 << (_DROPPED_BITS - 1))) <= 2).any())


def _dots(chars: Array, starts: Array, ends: Array) -> Array | None:
    """Where the point of each number is; its end where it has none; None if one has two."""
    dots = np.flatnonzero(chars == _DOT)
    if len(dots) == len(ends):
        inside = (starts < dots) & (dots < ends)
        if inside.all():
            return dots
    found = ends.copy()
    if len(dots):
        numbers = np.searchsorted(ends, dots)
        if bool((np.diff(numbers) == 0).any()):
            return None
        found[numbers] = dots
    return found


def _digits(
    chars: Array, ends: Array, counts: Array
) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """The numbers that stand in the last `counts` (at most 8) digits before each end."""
    at_every_byte: Array = np.ndarray(
        (len(chars) - _WORD + 1,), dtype="<u8", buffer=chars.data, strides=(1,)
    )
    words: Array = at_every_byte[ends - _WORD].astype(np.uint64, copy=False)
    words &= _LAST[counts]
    words &= np.uint64(0x0F0F0F0F0F0F0F0F)
    words *= np.uint64(2561)
    words >>= np.uint64(8)
    words &= np.uint64(0x00FF00FF00FF00FF)
    words *= np.uint64(6553601)
    words >>= np.uint64(16)
    words &= np.uint64(0x0000FFFF0000FFFF)
    words *= np.uint64(42949672960001)
    words >>= np.uint64(32)
    return words
