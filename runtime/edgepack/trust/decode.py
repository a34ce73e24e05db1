# ruff: noqa: ANN401  (cattrs hands types around as values; they have no narrower type)
"""From parsed JSON or TOML to frozen dataclasses, strictly: no value is ever coerced.

cattrs does the walking; the hooks here take away its leniency (`int("3")`, a string taken for a
list of characters). All that is wrong is collected and raised once.
"""

import functools
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import IterableValidationError, IterableValidationNote

from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue

T = TypeVar("T")
_SHOWN_ERRORS = 5
_MAX_BITS = 64  # JSON integers know no bound, but everything that is counted here does


def decode(cls: type[T], value: object, *, what: str, ignore_unknown: bool) -> T:
    """Make a dataclass from a parsed document.

    Args:
        cls: A dataclass; its fields may be str, int, float, bool, enums, tuples of one type
            ("list" in the document), dicts with string keys, other dataclasses, or `X | None`.
        value: What the parser returned.
        what: What the document is, for the error.
        ignore_unknown: True for formats that grow (contract, messages), False for configuration,
            where an unknown key is a typing mistake.

    Returns:
        An instance of `cls`.

    Raises:
        DocumentError: One line that names every field that is wrong (the first five).
    """
    if not isinstance(value, dict):
        raise DocumentError(f"{what}: expected an object, got {_show(value)}")
    try:
        return _converter(ignore_unknown).structure(value, cls)
    except (cattrs.BaseValidationError, ValueError, TypeError) as exc:
        found = cattrs.transform_error(exc, path="", format_exception=_describe)
        shown = "; ".join(
            text.removesuffix(" @ ").replace(" @ ", " at ").replace(" at .", " at ")
            for text in found[:_SHOWN_ERRORS]
        )
        more = f"; and {len(found) - _SHOWN_ERRORS} more" if len(found) > _SHOWN_ERRORS else ""
        raise DocumentError(f"{what}: {shown}{more}") from exc


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
def _converter(ignore_unknown: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=not ignore_unknown, detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(
        functools.partial(_is_generic, tuple), functools.partial(_tuple_hook, converter)
    )
    converter.register_structure_hook_factory(
        functools.partial(_is_generic, dict), functools.partial(_dict_hook, converter)
    )
    return converter


def _is_generic(origin: type, cls: Any) -> bool:
    return get_origin(cls) is origin


def _exactly(kind: type) -> Callable[[object, Any], Any]:
    def structure(value: object, cls: Any) -> Any:
        if cls is not kind and issubclass(cls, Enum):  # cattrs gives a StrEnum to the hook of str
            return _member(value, cls)
        if type(value) is not kind:
            raise _WrongValueError(f"expected {kind.__name__}, got {_show(value)}")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise _WrongValueError(f"expected at most {_MAX_BITS} bits, got {_show(value)}")
        return value

    return structure


def _number(value: object, _: Any) -> float:
    if type(value) is float or (type(value) is int and value.bit_length() <= _MAX_BITS):
        return float(value)
    raise _WrongValueError(f"expected a number, got {_show(value)}")


def _tuple_hook(converter: cattrs.Converter, cls: Any) -> Callable[[object, Any], tuple[Any, ...]]:
    item_type = get_args(cls)[0]

    def structure(value: object, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _WrongValueError(f"expected a list, got {_show(value)}")
        return tuple(_items(converter, enumerate(value), item_type, cls))

    return structure


def _dict_hook(converter: cattrs.Converter, cls: Any) -> Callable[[object, Any], dict[str, Any]]:
    item_type = get_args(cls)[1]

    def structure(value: object, _: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _WrongValueError(f"expected an object, got {_show(value)}")
        return dict(zip(value, _items(converter, value.items(), item_type, cls), strict=True))

    return structure


def _items(converter: cattrs.Converter, pairs: Any, item_type: Any, cls: Any) -> list[Any]:
    items: list[Any] = []
    errors: list[Exception] = []
    for index, item in pairs:
        try:
            items.append(item if item_type is object else converter.structure(item, item_type))
        except Exception as exc:  # noqa: BLE001  (collected; raised below as one group)
            note = IterableValidationNote(f"Structuring {cls} @ index {index!r}", index, item_type)
            exc.__notes__ = [*getattr(exc, "__notes__", []), note]
            errors.append(exc)
    if errors:
        raise IterableValidationError(f"While structuring {cls}", errors, cls)
    return items


def _member(value: object, cls: type[Enum]) -> Enum:
    allowed = [member.value for member in cls]
    if value not in allowed:
        raise _WrongValueError(f"expected one of {', '.join(allowed)}, got {_show(value)}")
    return cls(value)


class _WrongValueError(ValueError):
    pass


def _describe(exc: BaseException, cls: type | None) -> str:
    if isinstance(exc, KeyError):
        return "missing field"
    if isinstance(exc, cattrs.ForbiddenExtraKeysError):
        return f"unknown key {', '.join(map(_plain, sorted(exc.extra_fields)))}"
    if isinstance(exc, AttributeError | TypeError):
        return "expected an object"
    return str(exc)


def _plain(name: str) -> str:
    return name[:80] if name.isprintable() else repr(name[:80])


def _show(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:40]}{'…' if len(text) > 40 else ''}"
