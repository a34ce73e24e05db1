"""XGBoost's native files: .json and .ubj (binary JSON), told by their first key.

Recognising one needs nothing but its first bytes; XGBoost itself is imported in the child process
only, by the modules of `edgepack.converter.gbm_model`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import ModelFileError
from edgepack.converter.sources.import_gbm import import_for
from edgepack.converter.sources.scratch import SMALL_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

_JSON = re.compile(rb'\s*\{\s*"(learner|version)"\s*:')
_UBJSON = re.compile(rb"\{L\x00{7}\x07(learner|version)")
_OLD_BINARY = (b"binf", b"bs64")


class XgboostSource:
    """Boosters of XGBoost."""

    name = "XGBoost"
    extra = "gbm"
    scratch_bytes = SMALL_FILES
    needs_data = False

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of XGBoost's: see `Source`."""
        if head.startswith(_OLD_BINARY):
            raise ModelFileError(
                f"{path.name} has XGBoost's old binary format, which is gone since XGBoost 3: "
                "load it with an older one and save it as .ubj"
            )
        if _UBJSON.match(head):
            return "XGBoost model, UBJSON"
        if _JSON.match(head) and b'"learner"' in head:
            return "XGBoost model, JSON"
        return None

    def prepare(self) -> None:
        """Import XGBoost and onnx: see `Source`."""
        import_for("XGBoost", "xgboost")

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.gbm_model.natives import load_xgboost

        return load_xgboost(path)


SOURCE = XgboostSource()
