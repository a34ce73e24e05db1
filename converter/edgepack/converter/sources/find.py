"""Tells what a model file is, by its content."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import ModelFileError

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import Source

# In this order: the first that recognises a file has it.
SOURCES = (
    "mlflow_folder",
    "torch_file",
    "scikit_learn",
    "xgboost_file",
    "lightgbm_file",
    "catboost_file",
    "onnx_file",
    "tflite_file",
    "keras_file",
    "saved_model",
)
HEAD_BYTES = 4096
_STRANGERS = (
    (0, b"PAR1", "a Parquet file: that is data"),
    (0, b"\x93NUMPY", "a numpy array: that is data"),
    (0, b"Salted__", "an encrypted file"),
    (0, b"-----BEGIN", "a PEM file"),
    (0, b"oci-layout", "an edgepack bundle: it is converted already"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """What a file turned out to be.

    Attributes:
        module: The source's module in this package.
        description: For a person: "scikit-learn model, joblib, zlib-compressed".
        extra: What to install for it: `pip install 'edgepack[<extra>]'`.
        scratch_bytes: The largest file that its child process may write.
        needs_data: Whether loading it needs the data's shapes.
    """

    module: str
    description: str
    extra: str
    scratch_bytes: int
    needs_data: bool


def recognise(path: Path) -> Recognised:
    """Tell what a model file is.

    Raises:
        ModelFileError: It is missing, empty, damaged, or of no kind that edgepack converts.
    """
    head = _head(path)
    for module in SOURCES:
        source = source_named(module)
        description = source.recognise(path, head)
        if description is not None:
            return Recognised(
                module=module,
                description=description,
                extra=source.extra,
                scratch_bytes=source.scratch_bytes,
                needs_data=source.needs_data,
            )
    raise ModelFileError(f"{path.name} is {_stranger(head)}; edgepack converts {_known()}")


def source_named(module: str) -> "Source":
    """Import a source's module; its framework is not imported by that."""
    if module not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {module[:40]!r}")
    source: Source = importlib.import_module(f"edgepack.converter.sources.{module}").SOURCE
    return source


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    if path.exists() and not path.is_file():  # opening a pipe would wait for its writer for ever
        raise ModelFileError(f"{path.name} is not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as exc:
        raise ModelFileError(f"model {path.name} cannot be read: {exc.strerror}") from exc
    if not head:
        raise ModelFileError(f"{path.name} is empty")
    return head


def _stranger(head: bytes) -> str:
    if not head:
        return "a folder"
    for offset, magic, description in _STRANGERS:
        if head[offset:].startswith(magic):
            return description
    if head.startswith(b"PK\x03\x04"):
        return "a zip file of another kind (Keras or npz)"
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        return "a text file" if exc.start >= len(head) - 3 else "not a model that edgepack knows"
    return "a text file"


def _known() -> str:
    return (
        "scikit-learn (.joblib, .pkl, .skops), XGBoost (.json, .ubj), LightGBM (.txt), CatBoost "
        "(.cbm), PyTorch (.pt2, .pt, .pth, .safetensors), Keras (.keras, .h5), TensorFlow "
        "SavedModel folders, MLflow model folders, .onnx and .tflite"
    )
