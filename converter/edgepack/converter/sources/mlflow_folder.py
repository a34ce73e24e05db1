"""MLflow's model folders: whatever lies inside is read by its own source.

Recognising one needs nothing but a file called MLmodel; what it says is read in the child, by the
modules of `edgepack.converter.mlflow_model`. MLflow itself is not needed, and none of the code
that a folder may bring along is run.
"""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError, ModelFileError
from edgepack.converter.sources.scratch import LARGE_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

MODEL = "MLmodel"
_HEAD_BYTES = 65_536
_FLAVOURS = re.compile(r"^flavors:[^\S\n]*\n((?:[ ].*\n|\n)+)", re.MULTILINE)
_FLAVOUR = re.compile(r"^ {2}(\w+):", re.MULTILINE)
_EVERYONES = "python_function"  # stands beside the flavour that says what the model is


class MlflowSource:
    """Folders that MLflow saved."""

    name = "MLflow"
    extra = "mlflow"
    scratch_bytes = LARGE_FILES
    needs_data = True

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell whether a folder is one of MLflow's: see `Source`."""
        if head or not (path / MODEL).is_file():
            return None
        try:
            with (path / MODEL).open(encoding="utf-8") as file:
                text = file.read(_HEAD_BYTES)
        except (OSError, UnicodeDecodeError) as exc:
            raise ModelFileError(f"{path.name}/{MODEL} cannot be read as text") from exc
        found = _FLAVOURS.search(text + "\n")
        flavours = [] if found is None else _FLAVOUR.findall(found[1])
        told = [flavour for flavour in flavours if flavour != _EVERYONES] or flavours
        if not told:
            raise ModelFileError(f"{path.name}/{MODEL} names no flavors")
        return f"MLflow model folder, {', '.join(told)}"

    def prepare(self) -> None:
        """Import what reads the folder; the model's framework follows when it is known."""
        try:
            importlib.import_module("edgepack.converter.mlflow_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"MLflow's folders need {exc.name}: pip install 'edgepack[mlflow]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.mlflow_model.load import load_model

        return load_model(path, options)


SOURCE = MlflowSource()
