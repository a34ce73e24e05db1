"""What is wrong with a request is the caller's, and is told by the error object."""

from collections.abc import Callable
from typing import Final

from edgepack.fleet.conformance.open_inference_rules import refused, served
from edgepack.fleet.conformance.rules import OIP, Rule, must
from edgepack.fleet.conformance.subject import Subject, values
from edgepack.trust.strict_json import JsonValue

_SOURCE: Final = f"{OIP}, Inference Response JSON Error Object"


def _raw(body: bytes) -> Callable[[Subject], None]:
    def check(subject: Subject) -> None:
        headers = {"Content-Type": "application/json"}
        refused(subject.peer.ask("POST", f"{subject.path}/infer", body, headers))

    return check


def _document(value: JsonValue) -> Callable[[Subject], None]:
    return lambda subject: refused(subject.infer(value))


def _tensor(**changes: JsonValue) -> Callable[[Subject], None]:
    return lambda subject: refused(subject.infer(subject.changed(**changes)))


def _too_few_values(subject: Subject) -> None:
    tensor = subject.inputs[0]
    assert isinstance(tensor.data, list)
    refused(subject.infer(subject.changed(data=tensor.data[1:])))


def _other_rank(subject: Subject) -> None:
    shape: list[JsonValue] = [1, 1, *subject.inputs[0].shape]
    refused(subject.infer(subject.changed(shape=shape)))


def _other_kind(subject: Subject) -> None:
    tensor = subject.inputs[0]
    datatype = "FP32" if tensor.datatype == "BYTES" else "BYTES"
    assert isinstance(tensor.data, list)
    data = values(datatype, len(tensor.data))
    refused(subject.infer(subject.changed(datatype=datatype, data=data)))


def _missing_input(subject: Subject) -> None:
    document = subject.document()
    tensors = document["inputs"]
    assert isinstance(tensors, list)
    refused(subject.infer({"inputs": tensors[1:]}))


def _unknown_output(subject: Subject) -> None:
    refused(subject.infer(subject.document(outputs=[{"name": "no-output-has-this-name"}])))


def _unknown_model(subject: Subject) -> None:
    refused(subject.infer(subject.document(), path="/v2/models/no-model-has-this-name/infer"))


def _wrong_method(subject: Subject) -> None:
    reply = subject.peer.ask("GET", f"{subject.path}/infer")
    must(400 <= reply.status < 500, f"status {reply.status}")


def _goes_on(subject: Subject) -> None:
    for body in (b"", b"{", b"[]", b"\xff"):
        _raw(body)(subject)
        served(subject.infer(subject.document()))


def _rule(name: str, says: str, check: Callable[[Subject], None]) -> Rule:
    return Rule(name, says, _SOURCE, check)


RULES: Final = (
    _rule("error-empty", "an empty body is refused", _raw(b"")),
    _rule("error-json", "what is not JSON is refused", _raw(b"{nothing")),
    _rule("error-utf8", "what is not UTF-8 is refused", _raw(b'{"inputs": "\xff"}')),
    _rule("error-no-inputs", "a request without inputs is refused", _document({})),
    _rule("error-inputs", "inputs that are no list are refused", _document({"inputs": 1})),
    _rule("error-missing", "a missing input is refused", _missing_input),
    _rule("error-name", "an unknown input is refused", _tensor(name="no-input-has-this-name")),
    _rule("error-datatype", "an unknown datatype is refused", _tensor(datatype="FP33")),
    _rule("error-kind", "numbers for text, or text for numbers, are refused", _other_kind),
    _rule("error-shape", "a negative size is refused", _tensor(shape=[-1, -1])),
    _rule("error-rank", "another rank is refused", _other_rank),
    _rule("error-values", "fewer values than the shape says are refused", _too_few_values),
    _rule("error-data", "a tensor without data is refused", _tensor(data=None)),
    _rule("error-output", "an unknown output is refused", _unknown_output),
    _rule("error-model", "an unknown model is refused", _unknown_model),
    Rule("error-method", "GET of infer is 4xx", "RFC 9110, 15.5.6", _wrong_method),
    _rule("error-goes-on", "after a refusal the next request is answered", _goes_on),
)
