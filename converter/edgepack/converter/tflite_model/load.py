"""From a TFLite file to a model that answers."""

from pathlib import Path

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.sources.source import LoadOptions
from edgepack.converter.tflite_model.original import TfliteModel

_MAX_BYTES = 2**31 - 1


def load_model(path: Path, options: LoadOptions) -> TfliteModel:
    """Load and check a TFLite file.

    Raises:
        ModelFileError: It is damaged, or LiteRT does not load it.
        UnsupportedModelError: A contract cannot describe its tensors.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ModelFileError(f"{path.name} must be at most {_MAX_BYTES} bytes, got {size}")
    try:
        return TfliteModel(path.read_bytes(), options.data)
    except ModelFileError as exc:
        raise ModelFileError(f"{path.name}: {exc}") from exc
    except UnsupportedModelError as exc:
        raise UnsupportedModelError(f"{path.name}: {exc}") from exc
