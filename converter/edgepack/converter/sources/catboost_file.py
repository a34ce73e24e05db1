"""CatBoost's native files (.cbm), told by their magic bytes.

Recognising one needs nothing but its first bytes; CatBoost itself is imported in the child process
only, by the modules of `edgepack.converter.gbm_model`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import ModelFileError
from edgepack.converter.sources.import_gbm import import_for
from edgepack.converter.sources.scratch import SMALL_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

_MAGIC = b"CBM1"
_HEADER_BYTES = 8


class CatboostSource:
    """Models of CatBoost."""

    name = "CatBoost"
    extra = "gbm"
    scratch_bytes = SMALL_FILES
    needs_data = False

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of CatBoost's: see `Source`."""
        if not head.startswith(_MAGIC):
            return None
        said_bytes = _HEADER_BYTES + int.from_bytes(head[4:_HEADER_BYTES], "little")
        if len(head) < _HEADER_BYTES or path.stat().st_size < said_bytes:
            raise ModelFileError(f"{path.name} is a truncated CatBoost model")
        return "CatBoost model, cbm"

    def prepare(self) -> None:
        """Import CatBoost and onnx: see `Source`."""
        import_for("CatBoost", "catboost")

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.gbm_model.natives import load_catboost

        return load_catboost(path)


SOURCE = CatboostSource()
