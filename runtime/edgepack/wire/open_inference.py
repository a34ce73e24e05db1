"""Open Inference Protocol, version 2: requests and answers as bytes, for HTTP and MQTT.

A document is JSON, alone or followed by the tensors in binary form (the extension
`binary_tensor_data`): little-endian values in C order, and for BYTES each value behind its length
in four bytes. Binary data stays a view of the bytes that came; nothing is copied or allocated
before its size is known to be right. Making arrays of it is NOT done here: this package knows no
numpy. Where the extension stands: docs/serving.md.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue, parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.number_text import NumberText, take_out, taken

MAX_RANK: Final = 8
MAX_TENSORS: Final = 1024
MAX_HEADER_BYTES: Final = 1024 * 1024  # of the JSON in front of binary data
# Bytes of one value; BYTES has no such size.
VALUE_BYTES: Final[dict[str, int]] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
}
BYTES: Final = "BYTES"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REFUSED_PARAMETERS = ("shared_memory_region", "classification")
_LENGTH_BYTES: Final = 4
_REPEATED_BYTES: Final = 1024  # a caller of binary tensors sends the same small header each time


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One tensor as it goes over the wire.

    Attributes:
        name: The contract's name.
        datatype: "FP32", "BYTES", …
        shape: Sizes.
        data: Flat or nested lists of numbers, booleans or strings; a long list of numbers as its
            text; or the binary form.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[JsonValue] | NumberText | memoryview


@dataclass(frozen=True, slots=True)
class OutputWish:
    """An output that a caller asks for: its name, and whether it is to come in binary form."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a caller asks.

    Attributes:
        request_id: Echoed in the answer and joined with a truth, or None.
        tensors: Open Inference Protocol inputs, or None for a flat request.
        features: Feature or input name → value of a flat request, without `request_id`.
        outputs: Which outputs are wanted, in this order; empty for all.
        binary: Whether outputs that `outputs` says nothing of come in binary form.
    """

    request_id: str | None
    tensors: tuple[WireTensor, ...] | None
    features: Mapping[str, JsonValue] = field(default_factory=dict)
    outputs: tuple[OutputWish, ...] = ()
    binary: bool = False

    def in_json(self) -> "InferRequest":
        """The same, to be answered in JSON alone."""
        wishes = tuple(OutputWish(wish.name, binary=False) for wish in self.outputs)
        return replace(self, outputs=wishes, binary=False)


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """What a model answered: its name and version, the request's id, the outputs."""

    model: str
    version: str
    request_id: str | None
    outputs: tuple[WireTensor, ...]


def parse_infer(body: bytes | bytearray, header_bytes: int | None = None) -> InferRequest:
    """Parse an inference request.

    Args:
        body: The whole of it, already bounded by whoever received it.
        header_bytes: Size of the JSON in front of binary data; None if all of it is JSON.

    Raises:
        WireError: It is not such a request, or a tensor does not have the size that it says.
    """
    header, rest = _split(body, header_bytes)
    if rest is not None and len(header) <= _REPEATED_BYTES and b'"data"' not in header:
        return request_of(_repeated(bytes(header)), rest)
    header, texts = take_out(header)
    return request_of(_object_of(header, "request"), rest, texts)


def request_of(
    document: dict[str, JsonValue],
    rest: memoryview | None,
    texts: Sequence[NumberText] = (),
) -> InferRequest:
    """Make a request of its parsed JSON, the binary data behind it, and long lists of numbers.

    Raises:
        WireError: As `parse_infer`.
    """
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        raise WireError("request must have a list of inputs")
    parameters = _object(document.get("parameters"), "parameters")
    wishes = _list(document.get("outputs"), "outputs")
    binary = _flag(parameters, "binary_data_output")
    identity = document.get("id")
    return InferRequest(
        None if identity == "" else check_request_id(identity),
        _tensors(inputs, rest, "input", texts),
        {},
        tuple(_wish(value, binary) for value in wishes),
        binary,
    )


def render_infer(request: InferRequest) -> tuple[list[bytes | memoryview], int | None]:
    """Write a request with tensors, as a client does.

    Returns:
        The body's parts, and the size of the JSON in front if there is binary data.
    """
    document: dict[str, JsonValue] = {}
    if request.request_id is not None:
        document["id"] = request.request_id
    if request.binary:
        document["parameters"] = {"binary_data_output": True}
    if request.outputs:
        document["outputs"] = [
            {"name": wish.name, "parameters": {"binary_data": wish.binary}}
            for wish in request.outputs
        ]
    return _render(document, "inputs", request.tensors or ())


def parse_answer(body: bytes | bytearray, header_bytes: int | None = None) -> InferAnswer:
    """Parse an inference response, as a client does.

    Raises:
        WireError: It is not one.
    """
    header, rest = _split(body, header_bytes)
    document = _object_of(header, "response")
    model, version = document.get("model_name"), document.get("model_version", "")
    outputs = document.get("outputs")
    if not isinstance(model, str) or not isinstance(version, str):
        raise WireError("response must have a model_name, and a model_version that is a string")
    if not isinstance(outputs, list):
        raise WireError("response must have a list of outputs")
    return InferAnswer(
        model, version, check_request_id(document.get("id")), _tensors(outputs, rest, "output")
    )


def render_answer(answer: InferAnswer) -> tuple[list[bytes | memoryview], int | None]:
    """Write a response.

    Returns:
        The body's parts, and the size of the JSON in front if there is binary data.
    """
    document: dict[str, JsonValue] = {"model_name": answer.model, "model_version": answer.version}
    if answer.request_id is not None:
        document["id"] = answer.request_id
        return _render(document, "outputs", answer.outputs)
    binary = [(one, one.data) for one in answer.outputs if isinstance(one.data, memoryview)]
    if not binary or len(binary) < len(answer.outputs):
        return _render(document, "outputs", answer.outputs)
    forms = tuple((one.name, one.datatype, one.shape, data.nbytes) for one, data in binary)
    header = _repeated_answer(answer.model, answer.version, forms)
    return [header, *(data for _, data in binary)], len(header)


def byte_strings(data: memoryview, *, what: str) -> Iterator[memoryview]:
    """Walk over the values of a BYTES tensor in binary form.

    Raises:
        WireError: They end in the middle of one.
    """
    position, size = 0, len(data)
    while position < size:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        if start > size or position > size:
            raise WireError(f"{what}: its last value is cut off")
        yield data[start:position]


def check_request_id(value: JsonValue) -> str | None:
    """Check what a caller calls a request; a number is taken as its digits.

    Raises:
        WireError: It is not 1 to 128 printable ASCII characters.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise WireError("request_id must be 1 to 128 printable ASCII characters")
    return value


def _split(
    body: bytes | bytearray, header_bytes: int | None
) -> tuple[bytes | bytearray, memoryview | None]:
    """The JSON, and what follows it."""
    if header_bytes is None:
        return body, None
    most = min(len(body), MAX_HEADER_BYTES)
    if not 0 < header_bytes <= most:
        raise WireError(
            f"the JSON in front of binary data must have 1 to {most} bytes, got {header_bytes}"
        )
    return body[:header_bytes], memoryview(body)[header_bytes:]


def _object_of(text: bytes | bytearray, what: str) -> dict[str, JsonValue]:
    try:
        # numbers that are too large become inf here; whoever makes the arrays refuses them
        document = parse(text, what=what, max_bytes=len(text), finite=False)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    if not isinstance(document, dict):
        raise WireError(f"{what} must be a JSON object, got {type(document).__name__}")
    return document


@functools.lru_cache(maxsize=64)
def _repeated(header: bytes) -> dict[str, JsonValue]:
    """The same, parsed once; nobody changes what it gives."""
    return _object_of(header, "request")


@functools.lru_cache(maxsize=64)
def _repeated_answer(
    model: str, version: str, forms: tuple[tuple[str, str, tuple[int, ...], int], ...]
) -> bytes:
    """The JSON in front of an answer whose tensors are all binary: name, type, shape, bytes."""
    outputs: list[JsonValue] = [
        _entry(name, datatype, shape) | {"parameters": {"binary_data_size": count}}
        for name, datatype, shape, count in forms
    ]
    return render({"model_name": model, "model_version": version, "outputs": outputs})


def _entry(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, JsonValue]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _tensors(
    values: list[JsonValue], rest: memoryview | None, what: str, texts: Sequence[NumberText] = ()
) -> tuple[WireTensor, ...]:
    if len(values) > MAX_TENSORS:
        raise WireError(f"there must be at most {MAX_TENSORS} {what}s, got {len(values)}")
    tensors = []
    position = 0
    for value in values:
        tensor, size = _tensor(value, rest, position, what, texts)
        position += size
        tensors.append(tensor)
    left = 0 if rest is None else len(rest) - position
    if left:
        raise WireError(f"{left} bytes of binary data belong to no {what}")
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise WireError(f"each {what} must have a name of its own, got one twice")
    return tuple(tensors)


def _tensor(
    value: JsonValue, rest: memoryview | None, position: int, what: str, texts: Sequence[NumberText]
) -> tuple[WireTensor, int]:
    """One tensor, and how much of the binary data it takes."""
    if not isinstance(value, dict):
        raise WireError(f"each of {what}s must be an object, got {type(value).__name__}")
    name, datatype, shape = value.get("name"), value.get("datatype"), value.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise WireError(f"each of {what}s must have a name and a datatype")
    where = f"{what} {name[:64]!r}"
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise WireError(f"{where} must have a shape of at most {MAX_RANK} sizes")
    sizes = tuple(size for size in shape if type(size) is int and 0 <= size < 2**63)
    if len(sizes) != len(shape):
        raise WireError(f"{where} must have a shape of sizes >= 0")
    parameters = _object(value.get("parameters"), f"parameters of {where}")
    _refuse_extensions(parameters, where)
    count = parameters.get("binary_data_size")
    data = value.get("data")
    if count is None:
        long = taken(data, texts)
        if long is not None:
            return WireTensor(name, datatype, sizes, long), 0
        if not isinstance(data, list):
            raise WireError(f"{where} must have its data as a list")
        return WireTensor(name, datatype, sizes, data), 0
    if data is not None:
        raise WireError(f"{where} must have either data or a binary_data_size, got both")
    if type(count) is not int or count < 0:
        raise WireError(f"{where} must have a binary_data_size >= 0")
    left = 0 if rest is None else len(rest) - position
    if rest is None or count > left:
        raise WireError(f"{where} must have {count} bytes of binary data, got {left}")
    _check_size(datatype, sizes, count, where)
    return WireTensor(name, datatype, sizes, rest[position : position + count]), count


def _check_size(datatype: str, sizes: tuple[int, ...], count: int, where: str) -> None:
    if datatype == BYTES:
        least = math.prod(sizes) * _LENGTH_BYTES
        if count < least:
            raise WireError(
                f"{where} of shape {list(sizes)} must have at least {least} bytes, got {count}"
            )
        return
    each = VALUE_BYTES.get(datatype)
    if each is None:
        known = ", ".join([*VALUE_BYTES, BYTES])
        raise WireError(f"{where}: datatype must be one of {known}, got {datatype[:20]!r}")
    expected = math.prod(sizes) * each
    if count != expected:
        raise WireError(
            f"{where} of shape {list(sizes)} and datatype {datatype} must have {expected} bytes, "
            f"got {count}"
        )


def _wish(value: JsonValue, binary: bool) -> OutputWish:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str):
        raise WireError("each of outputs must be an object with a name")
    where = f"output {name[:64]!r}"
    parameters = _object(value.get("parameters"), f"parameters of {where}")
    _refuse_extensions(parameters, where)
    return OutputWish(name, _flag(parameters, "binary_data", default=binary))


def _refuse_extensions(parameters: dict[str, JsonValue], where: str) -> None:
    for name in _REFUSED_PARAMETERS:
        if parameters.get(name):
            raise WireError(f"{where}: {name} is an extension that is not supported here")


def _flag(parameters: dict[str, JsonValue], name: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise WireError(f"parameter {name} must be true or false, got {type(value).__name__}")
    return value


def _object(value: JsonValue, what: str) -> dict[str, JsonValue]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WireError(f"{what} must be an object, got {type(value).__name__}")
    return value


def _list(value: JsonValue, what: str) -> list[JsonValue]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        raise WireError(f"{what} must be a list of at most {MAX_TENSORS}")
    return value


def _render(
    document: dict[str, JsonValue], key: str, tensors: Sequence[WireTensor]
) -> tuple[list[bytes | memoryview], int | None]:
    listed: list[JsonValue] = []
    binary: list[memoryview] = []
    for tensor in tensors:
        entry = _entry(tensor.name, tensor.datatype, tensor.shape)
        if isinstance(tensor.data, memoryview):
            entry["parameters"] = {"binary_data_size": tensor.data.nbytes}
            binary.append(tensor.data)
        else:
            data = tensor.data
            entry["data"] = data.values() if isinstance(data, NumberText) else data
        listed.append(entry)
    document[key] = listed
    header = render(document)
    return [header, *binary], len(header) if binary else None
