"""Large weights in a file of their own, so that a device can map them instead of reading them.

The second file goes by its SHA-256: a device's store keeps every file under that name, so there
the model finds its weights beside it, without a copy or a link. Imports onnx only when used.
"""

import hashlib
from typing import TYPE_CHECKING, Final

from edgepack.converter.errors import UnsupportedModelError, one_line

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

LEAST_BYTES: Final = 1 << 20  # of weights; smaller models stay one file
_LEAST_TENSOR_BYTES: Final = 16 << 10  # smaller tensors stay in the model file
_PAGE_BYTES: Final = 4096
_LEAST_IR_VERSION: Final = 4  # before it, weights had to be inputs as well


def split(data: bytes) -> tuple[bytes, bytes | None]:
    """Take the large weights out of an ONNX file.

    Args:
        data: The file, with all its weights.

    Returns:
        The model file and the weights, each tensor at the start of a page; the file as it is and
        None where less than 1 MB can be taken out. The same file gives the same bytes.

    Raises:
        UnsupportedModelError: It is no ONNX file.
    """
    if len(data) < LEAST_BYTES:
        return data, None
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as exc:
        raise UnsupportedModelError(f"not an ONNX file: {one_line(exc)}") from exc
    large = _large_tensors(model)
    if model.ir_version < _LEAST_IR_VERSION or sum(len(raw) for _, raw in large) < LEAST_BYTES:
        return data, None
    places, pieces, end = [], [], 0
    for tensor, raw in large:
        gap = -end % _PAGE_BYTES
        pieces += [bytes(gap), raw]
        places.append((tensor, end + gap, len(raw)))
        end += gap + len(raw)
    weights = b"".join(pieces)
    location = weights_name(weights)
    for tensor, offset, length in places:
        _put_outside(tensor, {"location": location, "offset": str(offset), "length": str(length)})
    return model.SerializeToString(deterministic=True), weights


def weights_name(weights: bytes) -> str:
    """The name that the model file knows its weights by: 64 hexadecimal digits."""
    return hashlib.sha256(weights).hexdigest()


def _large_tensors(model: "ModelProto") -> "list[tuple[TensorProto, bytes]]":
    from onnx import TensorProto, numpy_helper

    inputs = {item.name for item in model.graph.input}
    found = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.STRING or tensor.name in inputs:
            continue
        raw = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
        if len(raw) >= _LEAST_TENSOR_BYTES:
            found.append((tensor, raw))
    return found


def _put_outside(tensor: "TensorProto", entries: dict[str, str]) -> None:
    kept = (tensor.name, tensor.data_type, list(tensor.dims))
    tensor.Clear()
    tensor.name, tensor.data_type = kept[:2]
    tensor.dims.extend(kept[2])
    tensor.data_location = tensor.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
