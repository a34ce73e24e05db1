"""What the user's process and its child say to each other: plain JSON and plain arrays.

The child may hold a hostile model, so nothing that it says is unpickled, and every size is
checked before it is believed. A message is the length of the JSON (4 bytes), the length of the
arrays (8 bytes), the JSON, and the arrays as one safetensors file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from edgepack.converter.errors import WorkerError
from edgepack.runtime import safetensors
from edgepack.runtime.tensors import Array, decode_strings, encode_strings, strings
from edgepack.trust import strict_json
from edgepack.trust.errors import EdgepackError
from edgepack.trust.strict_json import JsonValue

MAX_JSON_BYTES = 16 << 20
MAX_ARRAYS_BYTES = 1 << 33
_SHAPE_OF_TEXT = "text:"
FILE = "file:"  # no tensor of a model has this name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One message.

    Attributes:
        kind: "load", "run", "export", "tool"; in answers the same, or "error".
        fields: JSON values.
        arrays: By name; text has dtype object, raw bytes are uint8.
    """

    kind: str
    fields: dict[str, JsonValue] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


def write_message(file: BinaryIO, message: Message) -> None:
    """Write one message and flush it.

    Raises:
        OSError: The other side is gone.
    """
    plain: dict[str, Array] = {}
    shapes: dict[str, str] = {}
    for name, array in message.arrays.items():
        if array.dtype.kind in "OU":
            plain[name] = np.frombuffer(encode_strings(array), dtype=np.uint8)
            shapes[_SHAPE_OF_TEXT + name] = ",".join(map(str, array.shape))
        else:
            plain[name] = array
    arrays = safetensors.render(plain, shapes)
    order: JsonValue = list(message.arrays)  # safetensors sorts them
    text = strict_json.render({"kind": message.kind, "fields": message.fields, "order": order})
    file.write(len(text).to_bytes(4, "little") + len(arrays).to_bytes(8, "little"))
    file.write(text)
    file.write(arrays)
    file.flush()


def read_message(file: BinaryIO) -> Message | None:
    """Read one message; None at the end of the stream.

    Raises:
        WorkerError: The stream is not made of messages, or ends inside one.
    """
    head = file.read(12)
    if not head:
        return None
    json_bytes = int.from_bytes(head[:4], "little")
    arrays_bytes = int.from_bytes(head[4:], "little")
    if len(head) < 12 or json_bytes > MAX_JSON_BYTES or arrays_bytes > MAX_ARRAYS_BYTES:
        raise WorkerError("the model's process sent something that is not a message")
    text, data = file.read(json_bytes), file.read(arrays_bytes)
    if len(text) < json_bytes or len(data) < arrays_bytes:
        raise WorkerError("the model's process ended in the middle of a message")
    try:
        body = strict_json.parse(text, what="message", max_bytes=MAX_JSON_BYTES)
        arrays, shapes = safetensors.parse(data, what="message")
        return _message(body, arrays, shapes)
    except (EdgepackError, ValueError) as exc:
        raise WorkerError(f"the model's process sent a malformed message: {exc}") from exc


def _message(body: JsonValue, arrays: dict[str, Array], shapes: dict[str, str]) -> Message:
    if not isinstance(body, dict):
        raise WorkerError("expected an object")
    kind, fields, order = body.get("kind"), body.get("fields"), body.get("order")
    if not isinstance(kind, str) or not isinstance(fields, dict) or not isinstance(order, list):
        raise WorkerError("expected kind, fields and order")
    for key, shape_text in shapes.items():
        name = key.removeprefix(_SHAPE_OF_TEXT)
        shape = tuple(map(int, shape_text.split(",")))
        arrays[name] = strings(decode_strings(arrays[name].tobytes(), what=name), shape)
    if sorted(arrays) != sorted(map(str, order)):
        raise WorkerError("the order must name every array")
    return Message(
        kind=kind, fields=fields, arrays={str(name): arrays[str(name)] for name in order}
    )
