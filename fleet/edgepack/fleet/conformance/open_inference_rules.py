"""Health, metadata and inference, as Open Inference Protocol 2 has them for HTTP."""

import math
from typing import Any, Final

from edgepack.fleet.conformance.peer import Reply
from edgepack.fleet.conformance.rules import OIP, BrokenError, NotApplicableError, Rule, must
from edgepack.fleet.conformance.subject import Subject
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.open_inference import BYTES, VALUE_BYTES

_UNKNOWN: Final = "no-model-has-this-name"
_DATATYPES: Final = {*VALUE_BYTES, BYTES, "BF16"}


def served(reply: Reply) -> dict[str, Any]:
    """The object of an answer that must be a good one.

    Raises:
        BrokenError: It is not 200, or no JSON object.
    """
    must(reply.status == 200, f"status {reply.status}: {reply.body[:200]!r}")
    found = reply.object()
    must(found, f"no JSON object: {reply.body[:80]!r}")
    return found


def refused(reply: Reply) -> None:
    """An answer that must be the error object.

    Raises:
        BrokenError: Its status is no error, or it has no text under `error`.
    """
    must(reply.status >= 400, f"status {reply.status}: {reply.body[:200]!r}")
    must(reply.status < 500, f"status {reply.status}, though the request was wrong")
    must(
        isinstance(reply.object().get("error"), str),
        f"status {reply.status} without an error object: {reply.body[:120]!r}",
    )


def outputs_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of an answer, each with its form.

    Raises:
        BrokenError: One has not.
    """
    outputs = found.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        raise BrokenError(f"outputs must be a list, got {outputs!r:.80}")
    for output in outputs:
        must(isinstance(output, dict), f"an output must be an object, got {output!r:.80}")
        name, shape = output.get("name"), output.get("shape")
        must(isinstance(name, str), f"an output must have a name, got {output!r:.80}")
        must(output.get("datatype") in _DATATYPES, f"datatype {output.get('datatype')!r}")
        right = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        must(right, f"shape {shape!r:.80}")
    return outputs


def _live(subject: Subject) -> None:
    reply = subject.peer.ask("GET", "/v2/health/live")
    must(reply.status == 200, f"status {reply.status}")


def _ready(subject: Subject) -> None:
    reply = subject.peer.ask("GET", "/v2/health/ready")
    must(reply.status == 200, f"status {reply.status}")


def _model_ready(subject: Subject) -> None:
    reply = subject.peer.ask("GET", f"{subject.path}/ready")
    must(reply.status == 200, f"status {reply.status}")


def _unknown_model_is_not_ready(subject: Subject) -> None:
    reply = subject.peer.ask("GET", f"/v2/models/{_UNKNOWN}/ready")
    must(400 <= reply.status < 500, f"status {reply.status}")


def _server_metadata(subject: Subject) -> None:
    found = served(subject.peer.ask("GET", "/v2"))
    for key in ("name", "version"):
        must(isinstance(found.get(key), str), f"{key} must be a string, got {found.get(key)!r:.80}")
    extensions = found.get("extensions")
    right = isinstance(extensions, list) and all(isinstance(item, str) for item in extensions)
    must(right, f"extensions must be a list of strings, got {extensions!r:.80}")


def _model_metadata(subject: Subject) -> None:
    found = served(subject.peer.ask("GET", subject.path))
    must(found.get("name") == subject.model, f"name {found.get('name')!r:.80}")
    must(isinstance(found.get("platform"), str), f"platform {found.get('platform')!r:.80}")
    for side in ("inputs", "outputs"):
        listed = found.get(side)
        must(isinstance(listed, list) and listed, f"{side} must be a list, got {listed!r:.80}")
        assert isinstance(listed, list)
        for tensor in listed:
            right = isinstance(tensor, dict) and isinstance(tensor.get("name"), str)
            must(right, f"each of {side} must have a name, got {tensor!r:.80}")
            must(tensor.get("datatype") in _DATATYPES, f"datatype {tensor.get('datatype')!r:.40}")
            shape = tensor.get("shape")
            sizes = isinstance(shape, list) and all(type(n) is int and n >= -1 for n in shape)
            must(sizes, f"shape {shape!r:.80}")
    versions = found.get("versions", [])
    right = isinstance(versions, list) and all(isinstance(item, str) for item in versions)
    must(right, f"versions must be a list of strings, got {versions!r:.80}")


def _metadata_of_an_unknown_model(subject: Subject) -> None:
    refused(subject.peer.ask("GET", f"/v2/models/{_UNKNOWN}"))


def _infer(subject: Subject) -> None:
    found = served(subject.infer(subject.document()))
    must(found.get("model_name") == subject.model, f"model_name {found.get('model_name')!r:.80}")
    for output in outputs_of(found):
        flat = _flat(output.get("data"))
        expected = math.prod(output["shape"])
        must(
            len(flat) == expected,
            f"output {output['name']!r} of shape {output['shape']} has {len(flat)} values",
        )


def _request_id(subject: Subject) -> None:
    found = served(subject.infer(subject.document(id="edgepack-7")))
    must(found.get("id") == "edgepack-7", f"id {found.get('id')!r:.80}")


def _version(subject: Subject) -> None:
    if not subject.versions:
        raise NotApplicableError("the model has no versions")
    path = f"{subject.path}/versions/{subject.versions[0]}"
    outputs_of(served(subject.infer(subject.document(), path=f"{path}/infer")))
    served(subject.peer.ask("GET", path))
    reply = subject.peer.ask("GET", f"{path}/ready")
    must(reply.status == 200, f"status {reply.status} of {path}/ready")


def _nested_data(subject: Subject) -> None:
    tensor = subject.inputs[0]
    if len(tensor.shape) < 2:
        raise NotApplicableError("the first input has one dimension")
    assert isinstance(tensor.data, list)
    nested: list[JsonValue] = tensor.data
    for size in reversed(tensor.shape[1:]):
        nested = [nested[start : start + size] for start in range(0, len(nested), size or 1)]
    outputs_of(served(subject.infer(subject.changed(data=nested))))


def _several_samples(subject: Subject) -> None:
    if not subject.batches:
        raise NotApplicableError("the first dimension is fixed")
    tensors: list[JsonValue] = []
    for tensor in subject.inputs:
        assert isinstance(tensor.data, list)
        tensors.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": [3, *tensor.shape[1:]],
                "data": 3 * tensor.data,
            }
        )
    outputs_of(served(subject.infer({"inputs": tensors})))


def _requested_outputs(subject: Subject) -> None:
    names = [output["name"] for output in outputs_of(served(subject.infer(subject.document())))]
    for name in names:
        found = served(subject.infer(subject.document(outputs=[{"name": name}])))
        got = [output["name"] for output in outputs_of(found)]
        must(got == [name], f"asked for {name!r}, got {got}")


def _kept_connection(subject: Subject) -> None:
    for _ in range(20):
        reply = subject.infer(subject.document())
        must(reply.status == 200, f"status {reply.status}")
        must(reply.headers.get("connection", "").lower() != "close", "the connection is closed")


def _flat(value: object) -> list[object]:
    if not isinstance(value, list):
        return [value]
    found: list[object] = []
    for item in value:
        found += _flat(item) if isinstance(item, list) else [item]
    return found


RULES: Final = (
    Rule("live", "GET v2/health/live is 200", f"{OIP}, Health", _live),
    Rule("ready", "GET v2/health/ready is 200", f"{OIP}, Health", _ready),
    Rule("model-ready", "GET v2/models/M/ready is 200", f"{OIP}, Health", _model_ready),
    Rule(
        "unknown-not-ready",
        "ready of an unknown model is 4xx",
        f"{OIP}, Health",
        _unknown_model_is_not_ready,
    ),
    Rule(
        "server-metadata",
        "GET v2 has name, version, extensions",
        f"{OIP}, Server Metadata",
        _server_metadata,
    ),
    Rule(
        "model-metadata",
        "GET v2/models/M has name, platform, inputs, outputs",
        f"{OIP}, Model Metadata",
        _model_metadata,
    ),
    Rule(
        "unknown-metadata",
        "metadata of an unknown model is the error object",
        f"{OIP}, Model Metadata Response JSON Error Object",
        _metadata_of_an_unknown_model,
    ),
    Rule("infer", "a request in JSON is answered in JSON", f"{OIP}, Inference", _infer),
    Rule("id", "the request's id is echoed", f"{OIP}, Inference Response JSON Object", _request_id),
    Rule("version", "versions/V names the same model", f"{OIP}, Inference", _version),
    Rule("nested-data", "data may be nested by rows", f"{OIP}, Tensor Data", _nested_data),
    Rule("samples", "a free first dimension takes samples", f"{OIP}, Inference", _several_samples),
    Rule(
        "requested-outputs",
        "only the outputs that were asked for come",
        f"{OIP}, Request Output",
        _requested_outputs,
    ),
    Rule("keep-alive", "a connection takes many requests", "RFC 9112, 9.3", _kept_connection),
)
