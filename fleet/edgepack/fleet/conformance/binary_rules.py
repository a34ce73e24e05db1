"""The extension `binary_tensor_data`: tensors as bytes behind the JSON."""

import json
import math
from typing import Any, Final

from edgepack.fleet.conformance.open_inference_rules import outputs_of, refused, served
from edgepack.fleet.conformance.peer import Reply
from edgepack.fleet.conformance.rules import BINARY, BrokenError, NotApplicableError, Rule, must
from edgepack.fleet.conformance.subject import Subject, raw
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.open_inference import BYTES, VALUE_BYTES

_HEADER: Final = "inference-header-content-length"
_EXTENSIONS: Final = ("binary_tensor_data", "binary_data")


def _ask(subject: Subject, *, cut: int = 0, more: int = 0, **fields: JsonValue) -> Reply:
    """Ask with binary tensors; `cut` bytes are missing at the end, or `more` too many."""
    if not subject.extensions & set(_EXTENSIONS):
        raise NotApplicableError("the server does not say that it has the extension")
    data = [raw(tensor) for tensor in subject.inputs]
    tensors: list[JsonValue] = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(part)},
        }
        for tensor, part in zip(subject.inputs, data, strict=True)
    ]
    header = json.dumps({"inputs": tensors, **fields}).encode()
    body = header + b"".join(data) + bytes(more)
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }
    return subject.peer.ask("POST", f"{subject.path}/infer", body[: len(body) - cut], headers)


def _split(reply: Reply) -> tuple[dict[str, Any], bytes]:
    must(reply.status == 200, f"status {reply.status}: {reply.body[:200]!r}")
    size = reply.headers.get(_HEADER, "")
    must(size.isdigit(), f"Inference-Header-Content-Length {size!r}")
    try:
        found = json.loads(reply.body[: int(size)])
    except ValueError as exc:
        raise BrokenError(f"no JSON in the first {size} bytes") from exc
    return found, reply.body[int(size) :]


def _check_binary(reply: Reply) -> None:
    found, rest = _split(reply)
    total = 0
    for output in outputs_of(found):
        size = output.get("parameters", {}).get("binary_data_size")
        must(type(size) is int, f"binary_data_size {size!r} of output {output['name']!r}")
        must("data" not in output, f"output {output['name']!r} has data besides")
        if output["datatype"] != BYTES:
            expected = math.prod(output["shape"]) * VALUE_BYTES[output["datatype"]]
            must(size == expected, f"output {output['name']!r} has {size} bytes, not {expected}")
        total += size
    must(total == len(rest), f"{len(rest)} bytes follow the JSON, binary_data_size says {total}")


def _binary_in(subject: Subject) -> None:
    for output in outputs_of(served(_ask(subject))):
        must("data" in output, f"output {output['name']!r} must have data in JSON by default")


def _same_answer(subject: Subject) -> None:
    binary, plain = served(_ask(subject)), served(subject.infer(subject.document()))
    left, right = outputs_of(binary), outputs_of(plain)
    must(left == right, f"{left!r:.80} is not {right!r:.80}")


def _binary_out(subject: Subject) -> None:
    _check_binary(_ask(subject, parameters={"binary_data_output": True}))


def _binary_by_output(subject: Subject) -> None:
    names = [output["name"] for output in outputs_of(served(_ask(subject)))]
    wishes: list[JsonValue] = [
        {"name": name, "parameters": {"binary_data": True}} for name in names
    ]
    _check_binary(_ask(subject, outputs=wishes))


def _cut_off(subject: Subject) -> None:
    refused(_ask(subject, cut=1))


def _too_much(subject: Subject) -> None:
    refused(_ask(subject, more=4))


RULES: Final = (
    Rule("binary-in", "binary inputs are read, outputs are JSON", f"{BINARY}, request", _binary_in),
    Rule("binary-same", "binary and JSON give the same answer", f"{BINARY}, request", _same_answer),
    Rule(
        "binary-out",
        "binary_data_output makes all outputs binary",
        f"{BINARY}, response",
        _binary_out,
    ),
    Rule(
        "binary-by-output",
        "binary_data makes one output binary",
        f"{BINARY}, response",
        _binary_by_output,
    ),
    Rule("binary-cut", "data that ends early is refused", f"{BINARY}, request", _cut_off),
    Rule("binary-more", "data that nothing names is refused", f"{BINARY}, request", _too_much),
)
