"""CityHash64, first version (Pike and Alakuijala, 2011), which CatBoost keeps categories by.

Written from the published algorithm. CatBoost keeps the low 32 bits of a text's hash, and the
place of several categories in a table is mixed from theirs.
"""

import struct
from collections.abc import Iterable
from typing import Final

import numpy as np

from edgepack.runtime.tensors import Array

_BITS: Final = (1 << 64) - 1
_PRIMES: Final = (
    0xC3A5C85C97CB3127,
    0xB492B66FBE98F273,
    0x9AE16A3B2F90404F,
    0xC949D7C7509E6557,
)
_P0, _P1, _P2, _P3 = _PRIMES
_FOLD: Final = 0x9DDFEA08EB382D69


def city_hash_64(data: bytes) -> int:
    """The hash, 0 to 2**64 - 1.

    >>> f"{city_hash_64(b''):x}"
    '9ae16a3b2f90404f'
    """
    size = len(data)
    if size <= 16:
        return _short(data)
    if size <= 32:
        return _middle(data)
    return _two_halves(data) if size <= 64 else _long(data)


def category_hashes(texts: Iterable[str]) -> Array:
    """What CatBoost keeps of categories, uint32 (N,)."""
    found = [city_hash_64(text.encode(errors="surrogateescape")) for text in texts]
    return np.array([item & 0xFFFFFFFF for item in found], dtype=np.uint32)


def _word(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<Q", data, place)[0])


def _half(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _turn(value: int, shift: int) -> int:
    value &= _BITS
    return ((value >> shift) | (value << (64 - shift))) & _BITS


def _mix(value: int) -> int:
    value &= _BITS
    return value ^ (value >> 47)


def _fold(low: int, high: int) -> int:
    """Two words into one."""
    low, high = low & _BITS, high & _BITS
    first = _mix((low ^ high) * _FOLD)
    return _mix((high ^ first) * _FOLD) * _FOLD & _BITS


def _short(data: bytes) -> int:
    size = len(data)
    if size > 8:
        last = _word(data, size - 8)
        return _fold(_word(data, 0), _turn(last + size, size)) ^ last
    if size >= 4:
        return _fold(size + (_half(data, 0) << 3), _half(data, size - 4))
    if size:
        front = data[0] + (data[size >> 1] << 8)
        back = size + (data[-1] << 2)
        return _mix(front * _P2 ^ back * _P3) * _P2 & _BITS
    return _P2


def _middle(data: bytes) -> int:
    size = len(data)
    a = _word(data, 0) * _P1 & _BITS
    b = _word(data, 8)
    c = _word(data, size - 8) * _P2 & _BITS
    d = _word(data, size - 16) * _P0
    return _fold(_turn(a - b, 43) + _turn(c, 30) + d, a + _turn(b ^ _P3, 20) - c + size)


def _quarter(data: bytes, place: int, begin: int, last: int) -> tuple[int, int]:
    """Sums over 32 bytes of a text of up to 64."""
    a = begin + _word(data, place)
    b = _turn(a + last, 52)
    c = _turn(a, 37)
    a += _word(data, place + 8)
    c += _turn(a, 7)
    a += _word(data, place + 16)
    return (a + last) & _BITS, (b + _turn(a, 31) + c) & _BITS


def _two_halves(data: bytes) -> int:
    size = len(data)
    factor = (size + _word(data, size - 16)) * _P0
    one, two = _quarter(data, 0, factor, _word(data, 24))
    three, four = _quarter(data, size - 32, _word(data, 16), _word(data, size - 8))
    mixed = _mix((one + four) * _P2 + (three + two) * _P0)
    return _mix(mixed * _P0 + two) * _P2 & _BITS


def _weak(data: bytes, place: int, a: int, b: int) -> tuple[int, int]:
    """Two words of 32 bytes, not mixed well."""
    first, second, third, fourth = struct.unpack_from("<4Q", data, place)
    a += first
    b = _turn(b + a + fourth, 21)
    begin = a
    a += second + third
    b += _turn(a, 44)
    return (a + fourth) & _BITS, (b + begin) & _BITS


def _long(data: bytes) -> int:
    size = len(data)
    x = _word(data, 0)
    y = _word(data, size - 16) ^ _P1
    z = _word(data, size - 56) ^ _P0
    v = _weak(data, size - 64, size, y)
    w = _weak(data, size - 32, size * _P1, _P0)
    z += _mix(v[1]) * _P1
    x = _turn(z + x, 39) * _P1
    y = _turn(y, 33) * _P1
    for place in range(0, (size - 1) & ~63, 64):
        x = _turn(x + y + v[0] + _word(data, place + 16), 37) * _P1 ^ w[1]
        y = _turn(y + v[1] + _word(data, place + 48), 42) * _P1 ^ v[0]
        z = _turn(z ^ w[0], 33)
        v = _weak(data, place, v[1] * _P1, x + w[0])
        w = _weak(data, place + 32, z + w[1], y)
        z, x = x, z
    return _fold(
        _fold(v[0], w[0]) + _mix(y) * _P1 + z,
        _fold(v[1], w[1]) + x,
    )
