"""The model that a suite asks about: a request that fits it, made of what the server says of it."""

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from edgepack.fleet.conformance.peer import Peer, Reply
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.open_inference import BYTES, VALUE_BYTES, WireTensor

TEXT: Final = "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A server and one of its models.

    Attributes:
        peer: The server.
        model: The model's name.
        inputs: A tensor of zeros (of one word for text) for each input, in JSON form.
        extensions: What the server says that it can do beyond the protocol.
        versions: The model's versions, as the server says; may be empty.
        batches: Whether every input has a free first dimension.
    """

    peer: Peer
    model: str
    inputs: tuple[WireTensor, ...]
    extensions: frozenset[str]
    versions: tuple[str, ...]
    batches: bool

    @property
    def path(self) -> str:
        """Where the model is."""
        return f"/v2/models/{self.model}"

    def infer(self, document: JsonValue, *, path: str | None = None) -> Reply:
        """Ask with one JSON document."""
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        return self.peer.ask("POST", path or f"{self.path}/infer", body, headers)

    def document(self, **changes: JsonValue) -> dict[str, JsonValue]:
        """A request that fits the model, with other fields besides or instead."""
        tensors: list[JsonValue] = [_in_json(tensor) for tensor in self.inputs]
        return {"inputs": tensors, **changes}

    def changed(self, **changes: JsonValue) -> dict[str, JsonValue]:
        """A request whose first tensor has other fields."""
        first, *others = [_in_json(tensor) for tensor in self.inputs]
        return {"inputs": [{**first, **changes}, *others]}


def learn(peer: Peer, model: str, *, text: str = TEXT) -> Subject | None:
    """Find out what a request to the model looks like; None where the server does not say.

    Args:
        peer: The server.
        model: The model's name.
        text: What inputs of text are given: a model may know only some words.
    """
    metadata: dict[str, Any] = peer.ask("GET", f"/v2/models/{model}").object()
    server: dict[str, Any] = peer.ask("GET", "/v2").object()
    inputs = metadata.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        return None
    try:
        tensors = tuple(
            _zeros(value["name"], value["datatype"], value["shape"], text) for value in inputs
        )
        free = all(value["shape"] and value["shape"][0] == -1 for value in inputs)
    except (KeyError, TypeError, IndexError):
        return None
    extensions, versions = server.get("extensions"), metadata.get("versions")
    return Subject(
        peer=peer,
        model=model,
        inputs=tensors,
        extensions=frozenset(map(str, extensions if isinstance(extensions, list) else [])),
        versions=tuple(map(str, versions if isinstance(versions, list) else [])),
        batches=free,
    )


def values(datatype: str, count: int, *, text: str = TEXT) -> list[JsonValue]:
    """So many values of a datatype for JSON."""
    zeros: dict[str, JsonValue] = {BYTES: text, "BOOL": False}
    return [zeros.get(datatype, 0)] * count


def raw(tensor: WireTensor) -> bytes:
    """The tensor's values in binary form."""
    if tensor.datatype != BYTES:
        return bytes(VALUE_BYTES[tensor.datatype] * math.prod(tensor.shape))
    assert isinstance(tensor.data, list)
    words = [str(word).encode() for word in tensor.data]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def _zeros(name: str, datatype: str, shape: list[int], text: str) -> WireTensor:
    sizes = tuple(1 if size < 0 else size for size in shape)
    return WireTensor(name, datatype, sizes, values(datatype, math.prod(sizes), text=text))


def _in_json(tensor: WireTensor) -> dict[str, JsonValue]:
    assert isinstance(tensor.data, list)
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "data": tensor.data,
    }
