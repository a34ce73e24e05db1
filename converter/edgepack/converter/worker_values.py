"""The values that cross between the processes, as JSON objects: the same decoder as for files."""

from typing import TypeVar

from edgepack.trust.decode import decode, encode
from edgepack.trust.strict_json import JsonValue

T = TypeVar("T")


def to_fields(value: object) -> dict[str, JsonValue]:
    """A dataclass as a JSON object."""
    fields = encode(value)
    if not isinstance(fields, dict):
        raise TypeError(f"expected a dataclass, got {type(value).__name__}")
    return fields


def from_fields(cls: type[T], fields: JsonValue) -> T:
    """The dataclass that `to_fields` wrote.

    Raises:
        DocumentError: It is not one.
    """
    return decode(cls, fields, what=cls.__name__, ignore_unknown=False)
