# ruff: noqa: ANN401  (types are values here; they have no narrower type)
"""From parsed JSON or TOML to frozen dataclasses, strictly: no value is ever coerced.

All that is wrong is collected and raised once. It does NOT know formats: a dataclass is the format.
Why this is not a library's: docs/adr/0006.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar

from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue

T = TypeVar("T")
_SHOWN_ERRORS: Final = 5
_MAX_BITS: Final = 64  # JSON integers know no bound, but everything that is counted here does

# Takes a value and where it stands; gives what it becomes, or adds to the problems.
_Reader = Callable[[Any, str, list[str]], Any]


def decode(cls: type[T], value: object, *, what: str, ignore_unknown: bool) -> T:
    """Make a dataclass from a parsed document.

    Args:
        cls: A dataclass; its fields may be str, int, float, bool, enums of strings, tuples of one
            type ("list" in the document), dicts with string keys, `object` (taken as it is), other
            dataclasses, or `X | None`.
        value: What the parser returned.
        what: What the document is, for the error.
        ignore_unknown: True for formats that grow (contract, messages), False for configuration,
            where an unknown key is a typing mistake.

    Returns:
        An instance of `cls`.

    Raises:
        DocumentError: One line that names every field that is wrong (the first five).
    """
    problems: list[str] = []
    kind: Any = cls
    made: T = _reader(kind, ignore_unknown)(value, "", problems)
    if problems:
        rest = len(problems) - _SHOWN_ERRORS
        more = f"; and {rest} more" if rest > 0 else ""
        raise DocumentError(f"{what}: {'; '.join(problems[:_SHOWN_ERRORS])}{more}")
    return made


def encode(value: object) -> JsonValue:
    """Turn a dataclass into plain JSON values; fields that are None are left out."""
    if hasattr(value, "__dataclass_fields__"):
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {name: encode(item) for name, item in fields.items() if item is not None}
    if isinstance(value, Enum):
        return encode(value.value)
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a document holds plain values, got {type(value).__name__}")


@functools.cache
def _reader(kind: Any, ignore_unknown: bool) -> _Reader:
    """What reads values of one type.

    Raises:
        TypeError: The type is not one that documents hold; a defect of ours.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [option for option in typing.get_args(kind) if option is not types.NoneType]
        if len(inner) == 1:
            return _optional(_reader(inner[0], ignore_unknown))
    elif origin in (tuple, dict):
        item = _reader(typing.get_args(kind)[0 if origin is tuple else 1], ignore_unknown)
        return _list(item) if origin is tuple else _mapping(item)
    elif kind is object:
        return _as_it_is
    elif kind is float:
        return _number
    elif kind in (str, int, bool):
        return _exactly(kind)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        return _member(kind)
    elif dataclasses.is_dataclass(kind):
        return _dataclass(kind, ignore_unknown)
    raise TypeError(f"documents hold no values of type {kind}")


def _dataclass(kind: Any, ignore_unknown: bool) -> _Reader:
    hints = typing.get_type_hints(kind)
    readers = {
        field.name: _reader(hints[field.name], ignore_unknown) for field in dataclasses.fields(kind)
    }
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def read(value: Any, where: str, problems: list[str]) -> Any:
        if not isinstance(value, dict):
            return _wrong("an object", value, where, problems)
        before = len(problems)
        problems += [f"missing field{_at(where, name)}" for name in required if name not in value]
        found = {
            name: read_field(value[name], f"{where}.{name}", problems)
            for name, read_field in readers.items()
            if name in value
        }
        unknown = [] if ignore_unknown else sorted(value.keys() - readers.keys())
        if unknown:
            problems.append(f"unknown key {', '.join(map(_plain, unknown))}{_at(where)}")
        return kind(**found) if len(problems) == before else None

    return read


def _list(read_item: _Reader) -> _Reader:
    def read(value: Any, where: str, problems: list[str]) -> Any:
        if not isinstance(value, list):
            return _wrong("a list", value, where, problems)
        return tuple(
            read_item(item, f"{where}[{index}]", problems) for index, item in enumerate(value)
        )

    return read


def _mapping(read_item: _Reader) -> _Reader:
    def read(value: Any, where: str, problems: list[str]) -> Any:
        if not isinstance(value, dict):
            return _wrong("an object", value, where, problems)
        return {
            key: read_item(item, f"{where}[{key[:80]!r}]", problems) for key, item in value.items()
        }

    return read


def _optional(read_value: _Reader) -> _Reader:
    def read(value: Any, where: str, problems: list[str]) -> Any:
        return None if value is None else read_value(value, where, problems)

    return read


def _exactly(kind: type) -> _Reader:
    def read(value: Any, where: str, problems: list[str]) -> Any:
        if type(value) is not kind:
            return _wrong(kind.__name__, value, where, problems)
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            return _wrong(f"at most {_MAX_BITS} bits", value, where, problems)
        return value

    return read


def _number(value: Any, where: str, problems: list[str]) -> Any:
    if type(value) is float or (type(value) is int and value.bit_length() <= _MAX_BITS):
        return float(value)
    return _wrong("a number", value, where, problems)


def _member(kind: type[Enum]) -> _Reader:
    allowed = [member.value for member in kind]

    def read(value: Any, where: str, problems: list[str]) -> Any:
        if type(value) is not str or value not in allowed:
            return _wrong(f"one of {', '.join(allowed)}", value, where, problems)
        return kind(value)

    return read


def _as_it_is(value: Any, _where: str, _problems: list[str]) -> Any:
    return value


def _wrong(expected: str, value: object, where: str, problems: list[str]) -> None:
    problems.append(f"expected {expected}, got {_show(value)}{_at(where)}")


def _at(where: str, name: str = "") -> str:
    path = f"{where}.{name}" if name else where
    return f" at {path.removeprefix('.')}" if path else ""


def _plain(name: str) -> str:
    return name[:80] if name.isprintable() else repr(name[:80])


def _show(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:40]}{'…' if len(text) > 40 else ''}"
