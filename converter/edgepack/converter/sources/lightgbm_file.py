"""LightGBM's model texts, told by their first lines.

Recognising one needs nothing but its first bytes; LightGBM itself is imported in the child process
only, by the modules of `edgepack.converter.gbm_model`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.sources.import_gbm import import_for
from edgepack.converter.sources.scratch import SMALL_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

_TEXT = re.compile(rb"tree\r?\nversion=v\d")


class LightgbmSource:
    """Boosters of LightGBM."""

    name = "LightGBM"
    extra = "gbm"
    scratch_bytes = SMALL_FILES
    needs_data = False

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of LightGBM's: see `Source`."""
        return "LightGBM model, text" if _TEXT.match(head) else None

    def prepare(self) -> None:
        """Import LightGBM and onnx: see `Source`."""
        import_for("LightGBM", "lightgbm")

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.gbm_model.natives import load_lightgbm

        return load_lightgbm(path)


SOURCE = LightgbmSource()
