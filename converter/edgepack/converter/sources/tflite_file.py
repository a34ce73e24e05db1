"""Ready TFLite files: the file itself is the original, and LiteRT gives its answers.

Recognising one needs no LiteRT; the modules of `edgepack.converter.tflite_model` run in the child.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError
from edgepack.converter.sources.scratch import LARGE_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

_IDENTIFIER = b"TFL3"


class TfliteSource:
    """TFLite files."""

    name = "TFLite"
    extra = "tflite"
    scratch_bytes = LARGE_FILES  # the way to ONNX goes through a file
    needs_data = True  # it tells whether a quantized input is given as it is, or as real numbers

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is a TFLite model: see `Source`."""
        return "TFLite model" if head[4:8] == _IDENTIFIER else None

    def prepare(self) -> None:
        """Import LiteRT: see `Source`."""
        try:
            importlib.import_module("ai_edge_litert.interpreter")
            importlib.import_module("edgepack.converter.tflite_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"TFLite models need {exc.name}: pip install 'edgepack[tflite]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.tflite_model.load import load_model

        return load_model(path, options)


SOURCE = TfliteSource()
