"""Requests and truths on their way in: flat JSON by feature name, or Open Inference Protocol.

Here a payload becomes a value that says what the caller gave; matching it to the model's contract
is the device's.
"""

import re

from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_flat
from edgepack.wire.open_inference import (
    InferRequest,
    check_request_id,
    parse_infer,
    request_of,
)
from edgepack.wire.topics import MAX_REQUEST_BYTES

# Possessive, and a string without an end reaches to the end, as in edgepack.trust.strict_json.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Truth:
    """The true answer for an earlier request: a class (by name) or a number."""

    request_id: str
    label: str | None
    value: float | None


def parse_request(payload: bytes) -> InferRequest:
    """Parse a message of `in/infer/<model>`.

    A flat request is `{"air_temp": 298.1, "request_id": "a7"}`. An object with a list under
    `inputs` is Open Inference Protocol: `{"id": "a7", "inputs": [{"name": "x", …}]}`; binary
    tensors follow the object, where it ends.

    Raises:
        WireError: It is neither.
    """
    size = object_size(payload)
    if size < len(payload) and len(payload) <= MAX_REQUEST_BYTES and payload[size:].strip():
        return parse_infer(payload, size)
    fields = parse_flat(payload, what="request")
    if isinstance(fields.get("inputs"), list):
        return request_of(fields, None)
    request_id = check_request_id(fields.pop("request_id", None))
    if not fields:
        raise WireError("request must name at least one feature, got none")
    return InferRequest(request_id, None, fields)


def object_size(payload: bytes) -> int:
    """How many bytes the JSON object has that a payload begins with; all where there is no end.

    >>> object_size(b'{"a": "}"}binary')
    10
    """
    depth = 0
    for token in _TOKEN.finditer(payload):
        sign = token.group()[:1]
        if sign == b"{":
            depth += 1
        elif sign == b"}":
            depth -= 1
            if depth <= 0:
                return token.end()
    return len(payload)


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
