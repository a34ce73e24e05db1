"""TensorFlow Serving's REST form of a prediction: `instances` (rows) or `inputs` (columns).

Here a body becomes named or unnamed columns of JSON values; matching them to a contract is the
device's. `{"b64": …}` becomes the text that it holds. Signatures other than the default, `classify`
and `regress` are NOT here: a bundle has one signature.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue, parse
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

DEFAULT_SIGNATURE: Final = "serving_default"
_KNOWN_KEYS: Final = frozenset({"signature_name", "instances", "inputs"})
_BASE64: Final = "b64"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """What a caller asks; exactly one of the three has values.

    Attributes:
        is_rows: Whether it came as `instances`, and is to be answered as `predictions`.
        rows: Objects by input or feature name, one for each sample.
        columns: Input name → its values, the sample first.
        only: The values of the only input, the sample first.
    """

    is_rows: bool
    rows: tuple[Mapping[str, JsonValue], ...] = ()
    columns: Mapping[str, JsonValue] | None = None
    only: JsonValue = None


def parse_predict(body: bytes | bytearray) -> PredictRequest:
    """Parse the body of `:predict`.

    Args:
        body: Already bounded by whoever received it.

    Raises:
        WireError: It is not such a request.
    """
    try:
        # numbers that are too large become inf here; whoever makes the arrays refuses them
        document = parse(body, what="request", max_bytes=len(body), finite=False)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    if not isinstance(document, dict):
        raise WireError(f"request must be a JSON object, got {type(document).__name__}")
    unknown = sorted(document.keys() - _KNOWN_KEYS)
    if unknown:
        raise WireError(f"request must have instances or inputs, got {unknown[0][:64]!r} as well")
    signature = document.get("signature_name", DEFAULT_SIGNATURE)
    if signature not in (DEFAULT_SIGNATURE, ""):
        raise WireError(
            f"signature_name must be {DEFAULT_SIGNATURE!r}, got {str(signature)[:64]!r}"
        )
    if ("instances" in document) == ("inputs" in document):
        raise WireError("request must have either instances or inputs")
    if b'"b64"' in body:
        document = {key: _decoded(value) for key, value in document.items()}
    if "inputs" in document:
        inputs = document["inputs"]
        if isinstance(inputs, dict):
            return PredictRequest(is_rows=False, columns=inputs)
        return PredictRequest(is_rows=False, only=inputs)
    return _of_rows(document["instances"])


def _of_rows(instances: JsonValue) -> PredictRequest:
    if not isinstance(instances, list) or not instances:
        raise WireError("instances must be a list of at least one")
    rows = [row for row in instances if isinstance(row, dict)]
    if not rows:
        return PredictRequest(is_rows=True, only=instances)
    if len(rows) != len(instances) or any(row.keys() != rows[0].keys() for row in rows):
        raise WireError("instances must all be objects with the same names, or all be values")
    return PredictRequest(is_rows=True, rows=tuple(rows))


def _decoded(value: JsonValue) -> JsonValue:
    """The same with every `{"b64": …}` replaced by the text in it."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    text = value.get(_BASE64)
    if len(value) != 1 or not isinstance(text, str):
        return {key: _decoded(item) for key, item in value.items()}
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise WireError("b64 must be base64 of UTF-8 text, got other bytes") from exc
