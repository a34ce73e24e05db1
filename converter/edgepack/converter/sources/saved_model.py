"""TensorFlow's SavedModel folders, of any TensorFlow since the first.

Recognising one needs nothing but the names in the folder; the modules of
`edgepack.converter.tensorflow_model` run in the child.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError, ModelFileError
from edgepack.converter.sources.scratch import LARGE_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

MODEL = "saved_model.pb"
_TEXT = "saved_model.pbtxt"


class SavedModelSource:
    """TensorFlow SavedModels."""

    name = "TensorFlow"
    extra = "tensorflow"
    scratch_bytes = LARGE_FILES
    needs_data = True

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell whether a folder is a SavedModel: see `Source`."""
        if head or not path.is_dir():
            return None
        if (path / MODEL).is_file():
            return "TensorFlow SavedModel"
        if (path / _TEXT).is_file():
            raise ModelFileError(
                f"{path.name} is a SavedModel in text form ({_TEXT}): save it with as_text=False"
            )
        if (path / "checkpoint").is_file() and any(path.glob("*.index")):
            raise ModelFileError(
                f"{path.name} is a TensorFlow checkpoint: weights only, not the model that they "
                "belong to; restore it in Python, tf.saved_model.save it and convert that"
            )
        return None

    def prepare(self) -> None:
        """Import TensorFlow and tf2onnx: see `Source`."""
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        try:
            importlib.import_module("edgepack.converter.tensorflow_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"TensorFlow models need {exc.name}: pip install 'edgepack[tensorflow]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.tensorflow_model.load import load_model

        return load_model(path, options)


SOURCE = SavedModelSource()
