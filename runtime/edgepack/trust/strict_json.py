"""JSON from outside, bounded and unambiguous; and one canonical way to write it.

The standard parser takes duplicate keys (two readers then see two documents), NaN, and nesting
that ends in a RecursionError. This one refuses them. It does NOT look at the meaning: that is
`edgepack.trust.decode`.
"""

import json
import re
from collections import Counter
from typing import Never, TypeAlias, Union

from edgepack.trust.errors import DocumentError, DocumentLimitError

JsonValue: TypeAlias = Union[bool, int, float, str, "list[JsonValue]", "dict[str, JsonValue]", None]

MAX_DEPTH = 32
# Possessive, and a string without an end reaches to the end: else a document of escaped quotes
# would be scanned anew from each of them.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKET = re.compile(rb"[\[\]{}]")


def parse(
    data: bytes | bytearray,
    *,
    what: str,
    max_bytes: int,
    max_depth: int = MAX_DEPTH,
    finite: bool = True,
) -> JsonValue:
    """Parse one JSON document.

    Args:
        data: The document, UTF-8.
        what: What it is, for the error ("manifest", "root.json").
        max_bytes: The largest size that is looked at, in bytes.
        max_depth: The deepest nesting of arrays and objects.
        finite: Refuse numbers beyond a float's range. Whoever looks at all numbers anyway leaves
            it out, which takes half of the time of a document of numbers; they become inf.

    Returns:
        The value, with every object's keys unique and every number finite.

    Raises:
        DocumentLimitError: It is larger or deeper.
        DocumentError: It is not such a document.
    """
    if len(data) > max_bytes:
        raise DocumentLimitError(f"{what} must be at most {max_bytes} bytes, got {len(data)}")
    _check_depth(data, what, max_depth)
    try:
        decoder = _FINITE_DECODER if finite else _DECODER
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark")  # noqa: TRY301
        value: JsonValue = decoder.decode(text)
        if _SURROGATE.search(data):
            render(value)  # a lone surrogate cannot be written again, nor printed
    except (ValueError, RecursionError) as exc:
        raise DocumentError(f"{what} is not valid JSON: {exc}") from exc
    return value


def render(value: JsonValue) -> bytes:
    """Write a value the canonical way: keys sorted, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: A number is not finite.
    """
    return _ENCODER.encode(value).encode()


def _check_depth(data: bytes | bytearray, what: str, max_depth: int) -> None:
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return  # it has not as many brackets
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > max_depth:
            raise DocumentLimitError(f"{what} must be nested at most {max_depth} deep, got more")


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"key {twice[:80]!r} stands twice in one object")
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} is too large")
    return number


# Made once: `json.loads` and `json.dumps` make them anew for every document.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_FINITE_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
