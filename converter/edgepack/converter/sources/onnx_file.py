"""Ready ONNX files: the file itself is the original, and becomes the fp32 variant.

Recognising one needs no onnx; the modules of `edgepack.converter.onnx_model` run in the child.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError
from edgepack.converter.sources.protobuf import is_onnx
from edgepack.converter.sources.scratch import SMALL_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions


class OnnxSource:
    """ONNX files."""

    name = "ONNX"
    extra = "sklearn"
    scratch_bytes = SMALL_FILES
    needs_data = False

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is an ONNX model: see `Source`."""
        return "ONNX model" if is_onnx(path, head) else None

    def prepare(self) -> None:
        """Import onnx and onnxruntime: see `Source`."""
        try:
            importlib.import_module("edgepack.converter.onnx_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"ONNX models need {exc.name}: pip install 'edgepack[sklearn]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.onnx_model.load import load_model

        return load_model(path)


SOURCE = OnnxSource()
