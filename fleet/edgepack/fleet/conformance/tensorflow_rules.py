"""TensorFlow Serving's predictions over REST; asked only where somebody wants to know."""

import json
from collections.abc import Callable
from typing import Any, Final

from edgepack.fleet.conformance.open_inference_rules import refused, served
from edgepack.fleet.conformance.peer import Reply
from edgepack.fleet.conformance.rules import TENSORFLOW, Rule, must
from edgepack.fleet.conformance.subject import Subject
from edgepack.trust.strict_json import JsonValue


def _predict(subject: Subject, document: JsonValue) -> Reply:
    path = f"/v1/models/{subject.model}:predict"
    return subject.peer.ask("POST", path, json.dumps(document).encode())


def _sample(subject: Subject) -> dict[str, JsonValue]:
    """One sample by input name."""
    found: dict[str, JsonValue] = {}
    for tensor in subject.inputs:
        assert isinstance(tensor.data, list)
        value: list[JsonValue] = tensor.data
        for size in reversed(tensor.shape[1:]):
            value = [value[start : start + size] for start in range(0, len(value), size or 1)]
        found[tensor.name] = value[0]
    return found


def _status(subject: Subject) -> None:
    found = served(subject.peer.ask("GET", f"/v1/models/{subject.model}"))
    listed: Any = found.get("model_version_status")
    right = isinstance(listed, list) and listed and listed[0].get("state") == "AVAILABLE"
    must(right, f"model_version_status {listed!r:.80}")


def _metadata(subject: Subject) -> None:
    found = served(subject.peer.ask("GET", f"/v1/models/{subject.model}/metadata"))
    must("model_spec" in found and "metadata" in found, f"keys {sorted(found)}")


def _rows(subject: Subject) -> None:
    sample = _sample(subject)
    found = served(_predict(subject, {"instances": [sample, sample]}))
    predictions = found.get("predictions")
    right = isinstance(predictions, list) and len(predictions) == 2
    must(right, f"predictions must be 2, got {predictions!r:.80}")


def _columns(subject: Subject) -> None:
    columns: dict[str, JsonValue] = {name: [value] for name, value in _sample(subject).items()}
    found = served(_predict(subject, {"inputs": columns}))
    must(found.keys() == {"outputs"}, f"keys {sorted(found)}")


def _refuses(document: JsonValue) -> Callable[[Subject], None]:
    return lambda subject: refused(_predict(subject, document))


RULES: Final = (
    Rule("tf-status", "GET v1/models/M says AVAILABLE", f"{TENSORFLOW}, Model status", _status),
    Rule("tf-metadata", "metadata has its two parts", f"{TENSORFLOW}, Model Metadata", _metadata),
    Rule("tf-rows", "instances give predictions", f"{TENSORFLOW}, Predict, row format", _rows),
    Rule("tf-columns", "inputs give outputs", f"{TENSORFLOW}, Predict, column format", _columns),
    Rule("tf-neither", "neither of them is refused", f"{TENSORFLOW}, Predict", _refuses({})),
    Rule(
        "tf-both",
        "both of them are refused",
        f"{TENSORFLOW}, Predict",
        _refuses({"instances": [], "inputs": []}),
    ),
)
