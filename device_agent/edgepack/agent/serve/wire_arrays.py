"""Between tensors as they go over the wire and numpy arrays. Pure.

Binary data stays where it came in: the array is a view of it, unless it must be aligned.
"""

import math
from itertools import chain

import numpy as np

from edgepack.bundle.contract import Datatype
from edgepack.runtime.errors import InputError
from edgepack.runtime.tensors import DTYPES, Array, datatype_of, encode_strings, strings
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.errors import WireError
from edgepack.wire.number_text import NumberText
from edgepack.wire.open_inference import WireTensor, byte_strings


def array_of(tensor: WireTensor, *, null_is_nan: bool = False) -> Array:
    """Make the array that a caller's tensor is.

    Args:
        tensor: Its shape says how many values there must be.
        null_is_nan: Whether null stands for NaN in a float tensor.

    Raises:
        InputError: Its values are not of its datatype, or not as many as its shape says.
    """
    try:
        datatype = Datatype(tensor.datatype)
    except ValueError as exc:
        known = ", ".join(Datatype)
        raise InputError(
            f"input {tensor.name!r}: datatype must be one of {known}, got {tensor.datatype[:20]!r}"
        ) from exc
    if isinstance(tensor.data, memoryview):
        return _from_bytes(tensor, tensor.data, datatype)
    data = tensor.data
    if isinstance(data, NumberText):
        array = _from_text(data.text, tensor.shape, datatype)
        if array is not None:
            return array.reshape(tensor.shape)
        try:
            data = data.values()
        except WireError as exc:
            raise InputError(str(exc)) from exc
    flat = flatten(data, tensor.name)
    expected = math.prod(tensor.shape)
    if len(flat) != expected:
        raise InputError(
            f"input {tensor.name!r} of shape {list(tensor.shape)} must have {expected} values, "
            f"got {len(flat)}"
        )
    array = from_values(flat, datatype, tensor.name, null_is_nan=null_is_nan)
    return array.reshape(tensor.shape)


def tensor_of(name: str, array: Array, *, binary: bool) -> WireTensor:
    """Make a tensor of an output; in JSON, what is not finite becomes null."""
    datatype = datatype_of(array) or Datatype.BYTES
    if not binary:
        return WireTensor(name, datatype.value, array.shape, json_values(array))
    if datatype is Datatype.BYTES:
        data = memoryview(encode_strings(array))
    else:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        data = little.reshape(-1).view(np.uint8).data
    return WireTensor(name, datatype.value, array.shape, data)


def json_values(array: Array) -> list[JsonValue]:
    """The values of an array in C order; NaN and infinities, which JSON has not, are null."""
    values: list[JsonValue] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [
            None if isinstance(item, float) and not math.isfinite(item) else item for item in values
        ]
    return values


def flatten(value: list[JsonValue], name: str) -> list[JsonValue]:
    """The values of nested lists, in order.

    Raises:
        InputError: Lists and values stand side by side.
    """
    flat = value
    while flat and list in (kinds := set(map(type, flat))):
        if len(kinds) > 1:
            raise InputError(f"input {name!r} must have its values at the same depth")
        flat = list(chain.from_iterable(flat))  # type: ignore[arg-type]  # all are lists
    return flat


def from_values(
    flat: list[JsonValue], datatype: Datatype, name: str, *, null_is_nan: bool = False
) -> Array:
    """Make a flat array of JSON values.

    Raises:
        InputError: One of them is not of the datatype.
    """
    kinds = set(map(type, flat))
    if datatype is Datatype.BYTES:
        wrong = kinds - {str}
        if wrong:
            raise InputError(f"input {name!r} must be strings, got {_kind(wrong)}")
        return strings(flat, (len(flat),))  # type: ignore[arg-type]  # all are strings
    dtype = DTYPES[datatype]
    if null_is_nan and dtype.kind == "f" and type(None) in kinds:
        flat = [math.nan if value is None else value for value in flat]
        kinds.discard(type(None))
    wrong = kinds - ({bool} if datatype is Datatype.BOOL else {int, float})
    if wrong:
        raise InputError(f"input {name!r} must be {datatype.value} numbers, got {_kind(wrong)}")
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = int(info.min), int(info.max)
        for item in flat:
            if not isinstance(item, int) or not low <= item <= high:
                raise InputError(f"input {name!r} must be {datatype.value} integers, got {item}")
    try:
        with np.errstate(over="ignore"):  # what overflows becomes inf, which predict refuses
            return np.array(flat, dtype=np.float64 if dtype.kind == "f" else dtype).astype(
                dtype, copy=False
            )
    except OverflowError as exc:
        raise InputError(f"input {name!r} does not fit {datatype.value}: {exc}") from exc


def _from_text(text: bytes, shape: tuple[int, ...], datatype: Datatype) -> Array | None:
    if datatype in (Datatype.BYTES, Datatype.BOOL):
        return None
    from edgepack.agent.serve.decimal_text import parse_numbers  # few send long lists

    return parse_numbers(text, shape, DTYPES[datatype])


def _from_bytes(tensor: WireTensor, data: memoryview, datatype: Datatype) -> Array:
    if datatype is Datatype.BYTES:
        where = f"input {tensor.name!r}"
        expected = math.prod(tensor.shape)
        try:
            values = [str(value, "utf-8") for value in byte_strings(data, what=where)]
        except WireError as exc:
            raise InputError(str(exc)) from exc
        except UnicodeDecodeError as exc:
            raise InputError(f"{where} must be UTF-8, got other bytes") from exc
        if len(values) != expected:
            raise InputError(
                f"{where} of shape {list(tensor.shape)} must have {expected} values, "
                f"got {len(values)}"
            )
        return strings(values, tensor.shape)
    dtype = DTYPES[datatype]
    array: Array = np.frombuffer(data, dtype=dtype.newbyteorder("<")).reshape(tensor.shape)
    if datatype is Datatype.BOOL and not (array.view(np.uint8) <= 1).all():
        raise InputError(f"input {tensor.name!r} must be BOOL bytes of 0 and 1, got others")
    if not array.flags.aligned or not array.dtype.isnative:
        return array.astype(dtype)
    # numpy gives every array of a native dtype the same dtype object; the quick path asks for it
    return array.view(dtype)


def _kind(kinds: set[type]) -> str:
    names = sorted("null" if kind is type(None) else kind.__name__ for kind in kinds)
    return names[0]
