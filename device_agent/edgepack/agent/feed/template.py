"""Fills in what an action publishes. Pure.

`${label}` stands for a field of the prediction. In a table, a text that is nothing but a field
becomes its value with its type; within other text it becomes text. What is put into payloads of
text is escaped as within a JSON string, so that no prediction can add a key to a message.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from edgepack.trust.strict_json import JsonValue, render
from edgepack.wire.messages import Scalar

_FIELD: Final = re.compile(r"\$\{([^{}]{1,128})\}")

Fields = Mapping[str, Scalar | None]


def fill(payload: object, fields: Fields) -> bytes:
    """Render a payload.

    Args:
        payload: Text; or a table, of values as TOML has them; or None for all fields as JSON.
        fields: By name; one that is not there or not finite is `null` in a table, and nothing in
            text.
    """
    if payload is None:
        return render({name: _value(fields, name) for name in fields if _has(fields, name)})
    if isinstance(payload, str):
        return _FIELD.sub(lambda found: _escaped(fields, found[1]), payload).encode()
    return render(_filled(payload, fields))


def names_in(payload: object) -> Iterator[str]:
    """The names of the fields that a payload asks for."""
    if isinstance(payload, str):
        yield from _FIELD.findall(payload)
    elif isinstance(payload, dict):
        for value in payload.values():
            yield from names_in(value)
    elif isinstance(payload, list):
        for value in payload:
            yield from names_in(value)


def _filled(value: object, fields: Fields) -> JsonValue:
    if isinstance(value, str):
        whole = _FIELD.fullmatch(value)
        if whole:
            return _value(fields, whole[1])
        return _FIELD.sub(lambda found: _text(fields, found[1]), value)
    if isinstance(value, dict):
        return {str(key): _filled(item, fields) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, fields) for item in value]
    return value if isinstance(value, bool | int | float) else None


def _has(fields: Fields, name: str) -> bool:
    return _value(fields, name) is not None


def _value(fields: Fields, name: str) -> Scalar | None:
    value = fields.get(name)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(fields: Fields, name: str) -> str:
    value = _value(fields, name)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _escaped(fields: Fields, name: str) -> str:
    return json.dumps(_text(fields, name), ensure_ascii=False)[1:-1]
