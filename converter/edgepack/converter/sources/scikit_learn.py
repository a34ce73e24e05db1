"""scikit-learn models: pickles, joblib files and skops files.

Recognising one needs nothing but its first bytes; scikit-learn itself is imported in the child
process only, by the modules of `edgepack.converter.sklearn_model`.
"""

import importlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.converter.errors import MissingPackageError, ModelFileError, what_is_wrong
from edgepack.converter.sources.compressed import LZ4_MAGIC, compression_of, unpacked_head
from edgepack.converter.sources.scratch import SMALL_FILES

if TYPE_CHECKING:  # it needs numpy, and a child is started before that is imported
    from edgepack.converter.sources.source import LoadedModel, LoadOptions

_HEAD_BYTES = 65_536
_PICKLE_PROTOCOLS = range(2, 6)
_OLD_PICKLES = (b"ccopy_reg\n", b"ccopyreg\n", b"csklearn.")
_SKOPS_MEMBER = "schema.json"


class SklearnSource:
    """scikit-learn estimators and pipelines."""

    name = "scikit-learn"
    extra = "sklearn"
    scratch_bytes = SMALL_FILES
    needs_data = False

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it may be one of scikit-learn's: see `Source`."""
        if head.startswith(b"PK\x03\x04"):
            return "scikit-learn model, skops" if _is_skops(path) else None
        if head.startswith(LZ4_MAGIC):
            raise ModelFileError(
                f"{path.name} is compressed with lz4, which edgepack does not unpack; "
                "save it again with joblib.dump(model, path, compress=3)"
            )
        packing = compression_of(head)
        if packing is not None:
            head = unpacked_head(path, _HEAD_BYTES)
        if not _is_pickle(head):
            return None
        container = "joblib" if b"joblib.numpy_pickle" in head else "pickle"
        return f"{container} file" + (f", {packing}-compressed" if packing else "")

    def prepare(self) -> None:
        """Import scikit-learn and skl2onnx: see `Source`."""
        try:
            importlib.import_module("edgepack.converter.sklearn_model.load")
        except ImportError as exc:
            raise MissingPackageError(
                f"scikit-learn models need {exc.name}: pip install 'edgepack[sklearn]'"
            ) from exc

    def load(self, path: Path, options: "LoadOptions") -> "LoadedModel":
        """Load the model: see `Source`."""
        from edgepack.converter.sklearn_model.load import load_model

        return load_model(path, trust_pickle=options.trust_pickle)


SOURCE = SklearnSource()


def _is_pickle(head: bytes) -> bool:
    if head[:1] == b"\x80" and len(head) > 2:
        return head[1] in _PICKLE_PROTOCOLS
    return head.startswith(_OLD_PICKLES)


def _is_skops(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return _SKOPS_MEMBER in archive.namelist()
    except (zipfile.BadZipFile, OSError) as exc:
        raise ModelFileError(f"{path.name} is a damaged zip file: {what_is_wrong(exc)}") from exc
