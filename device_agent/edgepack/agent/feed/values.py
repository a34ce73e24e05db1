"""From a value in a message to one in a model's unit. Pure."""

import json
import math

from edgepack.agent.feed.errors import MessageError
from edgepack.agent.feed.plan import Column
from edgepack.bundle.contract import Datatype
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.json_path import MISSING, look_up

_WHOLE = frozenset(Datatype) - {
    Datatype.BOOL, Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BYTES,
}  # fmt: skip


def read_value(document: JsonValue, column: Column) -> JsonValue | object:
    """A column's value in a message, or MISSING.

    `null` is missing, and so is a category that the map does not have. Text that is a number is
    that number; true and false are 1 and 0, where the model wants numbers.

    Returns:
        A number, text or boolean as the column's datatype wants it, or a list of them.

    Raises:
        MessageError: The value is of another kind.
    """
    return _converted(look_up(document, column.path), column)


def _converted(raw: JsonValue | object, column: Column) -> JsonValue | object:
    if raw is MISSING or raw is None:
        return MISSING
    if isinstance(raw, list):
        found = (_converted(item, column) for item in raw)
        return [None if item is MISSING else item for item in found]
    if column.rule.map:
        mapped = column.rule.map.get(raw if isinstance(raw, str) else json.dumps(raw), MISSING)
        return mapped if mapped is MISSING else fitted(mapped, column)
    if column.datatype is Datatype.BYTES:
        if not isinstance(raw, str):
            raise _wrong(column, "text", raw)
        return raw
    if type(raw) is int and (column.rule.scale, column.rule.offset) == (1, 0):
        return raw if column.datatype is not Datatype.BOOL else raw != 0  # no digit is lost
    return fitted(_number(raw, column) * column.rule.scale + column.rule.offset, column)


def fitted(value: object, column: Column) -> JsonValue:
    """A number as the datatype wants it: whole where it is whole, a truth value for BOOL."""
    if column.datatype is Datatype.BYTES:
        return str(value)
    number = _number(value, column)
    if column.datatype is Datatype.BOOL:
        return number != 0
    if column.datatype in _WHOLE and number == int(number):
        return int(number)
    return number


def _number(raw: object, column: Column) -> float:
    try:
        if isinstance(raw, bool | int | float | str):
            number = float(raw)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    raise _wrong(column, "a number", raw)


def _wrong(column: Column, expected: str, raw: object) -> MessageError:
    got = f"{type(raw).__name__} {str(raw)[:40]!r}"
    return MessageError("wrong_value", f"feature {column.name!r} must be {expected}, got {got}")
