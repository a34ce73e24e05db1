"""Requests and truths on their way in: flat JSON by feature name, or Open Inference Protocol JSON.

Here a payload becomes a value that says what the caller gave; matching it to the model's contract
is the device's. The protocol's binary extension is NOT here yet.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.trust.strict_json import JsonValue, render
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_flat

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
MAX_RANK = 8


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One tensor as Open Inference Protocol writes it in JSON.

    Attributes:
        name: The contract's name.
        datatype: "FP32", "BYTES", …
        shape: Sizes.
        data: Flat or nested lists of numbers, booleans or strings.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[JsonValue]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a caller asks.

    Attributes:
        request_id: Echoed in the answer and joined with a truth, or None.
        tensors: Open Inference Protocol inputs, or None for a flat request.
        features: Feature or input name → value of a flat request, without `request_id`.
    """

    request_id: str | None
    tensors: tuple[WireTensor, ...] | None
    features: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Truth:
    """The true answer for an earlier request: a class (by name) or a number."""

    request_id: str
    label: str | None
    value: float | None


def parse_request(payload: bytes) -> InferRequest:
    """Parse a message of `in/infer/<model>`.

    A flat request is `{"air_temp": 298.1, "request_id": "a7"}`. An object with a list under
    `inputs` is Open Inference Protocol: `{"id": "a7", "inputs": [{"name": "x", …}]}`.

    Raises:
        WireError: It is neither.
    """
    fields = parse_flat(payload, what="request")
    inputs = fields.get("inputs")
    if isinstance(inputs, list):
        return InferRequest(check_request_id(fields.get("id")), tuple(map(_tensor, inputs)), {})
    request_id = check_request_id(fields.pop("request_id", None))
    if not fields:
        raise WireError("request must name at least one feature, got none")
    return InferRequest(request_id, None, fields)


def parse_truth(payload: bytes) -> Truth:
    """Parse a message of `in/truth/<model>`: `{"request_id": "a7", "label": "3"}` or `"value"`.

    Raises:
        WireError: It has no request id, or not exactly one of `label` and `value`.
    """
    fields = parse_flat(payload, what="truth")
    request_id = check_request_id(fields.get("request_id"))
    if request_id is None:
        raise WireError("truth must have a request_id, got none")
    label, value = fields.get("label"), fields.get("value")
    if (label is None) == (value is None):
        raise WireError("truth must have either label or value")
    if value is not None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError(f"truth value must be a number, got {type(value).__name__}")
        try:
            return Truth(request_id, None, float(value))
        except OverflowError as exc:
            raise WireError("truth value must fit a float, got a larger integer") from exc
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise WireError(f"truth label must be a string, got {type(label).__name__}")
    return Truth(request_id, str(label), None)


def render_response(
    model: str, version: str, request_id: str | None, outputs: tuple[WireTensor, ...]
) -> bytes:
    """An Open Inference Protocol response."""
    response: dict[str, JsonValue] = {
        "model_name": model,
        "model_version": version,
        "outputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "data": tensor.data,
            }
            for tensor in outputs
        ],
    }
    if request_id is not None:
        response["id"] = request_id
    return render(response)


def check_request_id(value: JsonValue) -> str | None:
    """The id of a request as text, or None where there is none.

    Raises:
        WireError: It is neither 1 to 128 printable ASCII characters nor an integer.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise WireError("request_id must be 1 to 128 printable ASCII characters")
    return value


def _tensor(value: JsonValue) -> WireTensor:
    if not isinstance(value, dict):
        raise WireError(f"each of inputs must be an object, got {type(value).__name__}")
    name, datatype = value.get("name"), value.get("datatype")
    shape, data = value.get("shape"), value.get("data")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise WireError("each of inputs must have a name and a datatype")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise WireError(f"input {name[:64]!r} must have a shape of at most {MAX_RANK} sizes")
    sizes = [size for size in shape if isinstance(size, int) and not isinstance(size, bool)]
    if len(sizes) != len(shape) or any(size < 0 for size in sizes):
        raise WireError(f"input {name[:64]!r} must have a shape of sizes >= 0")
    if not isinstance(data, list):
        raise WireError(f"input {name[:64]!r} must have its data as a list")
    return WireTensor(name, datatype, tuple(sizes), data)
