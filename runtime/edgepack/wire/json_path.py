"""Where a value stands in a JSON document: a small part of what is called JSON path.

`a.b[0].c` goes through objects by key and through lists by index, `[-1]` from the end;
`["a key"]` names any key; `$` is the whole document, and may stand before the rest. There are NO
wildcards, filters or searches: a path names one place.
"""

import re
from typing import Final, TypeAlias

from edgepack.trust.strict_json import JsonValue
from edgepack.wire.errors import WireError

JsonPath: TypeAlias = tuple[str | int, ...]

MISSING: Final = object()
_MAX_PATH: Final = 256
_PART = re.compile(r'\.?([^\s.\[\]"$]+)|\[(-?\d{1,6})\]|\["((?:[^"\\]|\\["\\])*)"\]')


def parse_path(text: str) -> JsonPath:
    r"""Take a path apart.

    >>> parse_path('a.b[0]["c d"]')
    ('a', 'b', 0, 'c d')

    Raises:
        WireError: It is not such a path.
    """
    place = 1 if text.startswith("$") else 0
    parts: list[str | int] = []
    while place < len(text):
        found = _PART.match(text, place)
        leads = text[place] == "."
        if found is None or leads != (bool(parts or text[0] == "$") and found[1] is not None):
            break
        key, index, quoted = found.groups()
        if index is not None:
            parts.append(int(index))
        else:
            parts.append(key if key is not None else re.sub(r"\\(.)", r"\1", quoted))
        place = found.end()
    if not text or len(text) > _MAX_PATH or place < len(text):
        raise WireError(f"a JSON path is like a.b[0].c, got {text[:80]!r}")
    return tuple(parts)


def look_up(document: JsonValue, path: JsonPath) -> JsonValue | object:
    """The value at a path, or MISSING."""
    value: JsonValue = document
    for part in path:
        if isinstance(part, str):
            if not isinstance(value, dict) or part not in value:
                return MISSING
            value = value[part]
        else:
            if not isinstance(value, list) or not -len(value) <= part < len(value):
                return MISSING
            value = value[part]
    return value
