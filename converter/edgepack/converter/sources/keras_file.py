"""Keras: `.keras` files and HDF5 files, read by Keras 3 on torch, without TensorFlow.

Recognising one needs neither keras nor h5py: whether an HDF5 file holds a model, and not only
weights, is told by the modules of `edgepack.converter.keras_model`, which run in the child.
"""

import importlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError, ModelFileError, what_is_wrong
from edgepack.converter.sources.scratch import LARGE_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"


class KerasSource:
    """Keras models."""

    name = "Keras"
    extra = "keras"
    scratch_bytes = LARGE_FILES
    needs_data = True

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of Keras's: see `Source`."""
        if head.startswith(HDF5_MAGIC):
            return "HDF5 file (Keras)"
        return "Keras model" if head.startswith(b"PK\x03\x04") and _is_keras(path) else None

    def prepare(self) -> None:
        """Import keras on torch: see `Source`."""
        os.environ["KERAS_BACKEND"] = "torch"
        # The user's keras.json may ask for another layout or precision, and is nobody's to write.
        os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-")
        # Keras and litert-torch look for TensorFlow, which takes seconds and is not needed.
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
        try:
            importlib.import_module("edgepack.converter.keras_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"Keras models need {exc.name}: pip install 'edgepack[keras]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.keras_model.load import load_model

        return load_model(path, options)


SOURCE = KerasSource()


def _is_keras(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {CONFIG, WEIGHTS} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError) as exc:
        raise ModelFileError(f"{path.name} is a damaged zip file: {what_is_wrong(exc)}") from exc
