"""PyTorch: exported programs, TorchScript, and weights with the code that makes the model.

Recognising one needs neither torch nor running anything of it; the modules of
`edgepack.converter.torch_model` run in the child.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError
from edgepack.converter.sources.scratch import LARGE_FILES
from edgepack.converter.sources.torch_kind import torch_file

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions


class TorchSource:
    """PyTorch modules."""

    name = "PyTorch"
    extra = "torch"
    scratch_bytes = LARGE_FILES
    needs_data = True

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of PyTorch's: see `Source`."""
        found = torch_file(path, head) if head else None
        return None if found is None else found.description

    def prepare(self) -> None:
        """Import torch: see `Source`."""
        try:
            importlib.import_module("edgepack.converter.torch_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"PyTorch models need {exc.name}: pip install 'edgepack[torch]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.torch_model.load import load_model

        return load_model(path, options)


SOURCE = TorchSource()
