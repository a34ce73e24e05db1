"""Tells PyTorch's files apart by their content, without torch and without running anything.

A `.pt` may be any of them: an exported program, TorchScript, weights, a checkpoint with weights
inside, or a pickled object, which is a program.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgepack.converter.errors import ModelFileError, what_is_wrong
from edgepack.converter.sources.pickle_names import names_in

ZIP_MAGIC: Final = b"PK\x03\x04"
# What torch.save wrote before version 1.6: five pickles, the first of which is this number.
OLD_MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
EXPORT_LINES: Final = (
    "torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes="
    '({0: torch.export.Dim("batch")},)), "model.pt2")'
)
_STATE_MODULES: Final = ("collections", "torch", "torch._utils", "torch.storage", "_codecs")
_NUMPY_MODULES: Final = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_MAX_PICKLE_BYTES: Final = 256 << 20
_MAX_HEADER_BYTES: Final = 100_000_000
_OLD_PROGRAM: Final = "serialized_exported_program.json"
_PICKLE_PROTOCOLS: Final = range(2, 6)


class TorchKind(StrEnum):
    """What a file is."""

    PROGRAM = "PyTorch ExportedProgram"
    SCRIPT = "TorchScript module"
    WEIGHTS = "PyTorch weights"
    PICKLED = "pickled PyTorch object"
    SAFETENSORS = "safetensors weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFile:
    """A file of PyTorch's.

    Attributes:
        kind: What it is.
        container: How it is packed: "zip", "old format", "plain pickle".
        asks_for: Names that a pickle in it asks for, beyond what weights need.
    """

    kind: TorchKind
    container: str
    asks_for: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """For a person: "PyTorch weights, old format"."""
        return self.kind.value + ("" if self.container == "zip" else f", {self.container}")


def torch_file(path: Path, head: bytes) -> TorchFile | None:
    """Tell what a file is, if it is one of PyTorch's.

    Args:
        path: The file.
        head: Its first bytes.

    Raises:
        ModelFileError: It is one of PyTorch's, and damaged or of no use.
    """
    if head.startswith(ZIP_MAGIC):
        return _zip_kind(path)
    if head.startswith(OLD_MAGIC):
        return _old_kind(path)
    if head[4:8] in (b"ET12", b"PTMF"):
        raise ModelFileError(
            f"{path.name} is a file for PyTorch's own mobile runtime; convert what it was made "
            f"from: {EXPORT_LINES}"
        )
    if _is_safetensors(path, head):  # before pickles: its length may begin as they do
        return TorchFile(kind=TorchKind.SAFETENSORS, container="zip")
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
        return _plain_kind(path, head)
    return None


def zip_names(path: Path) -> list[str]:
    """The members of a zip file; empty if it is damaged.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []  # the last source in the row says so
    except OSError as exc:
        raise ModelFileError(f"model {path.name} cannot be read: {exc.strerror}") from exc


def _zip_kind(path: Path) -> TorchFile | None:
    names = zip_names(path)
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise ModelFileError(
            f"{path.name} holds machine code of AOTInductor; convert the exported program that "
            f"it was compiled from: {EXPORT_LINES}"
        )
    if "archive_format" in inner and any(name.startswith("models/") for name in inner):
        return TorchFile(kind=TorchKind.PROGRAM, container="zip")
    if _OLD_PROGRAM in names:
        return TorchFile(kind=TorchKind.PROGRAM, container="old format")
    if "MAR-INF/MANIFEST.json" in names:
        raise ModelFileError(
            f"{path.name} is a TorchServe archive; unpack it and convert the model file inside"
        )
    if "data.pkl" not in inner:
        return None
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return TorchFile(kind=TorchKind.SCRIPT, container="zip")
    member = next(name for name in names if name.partition("/")[2] == "data.pkl")
    return _by_names(_member_names(path, member), container="zip")


def _member_names(path: Path, member: str) -> list[tuple[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(member).file_size > _MAX_PICKLE_BYTES:
                raise ModelFileError(f"{path.name} holds a pickle larger than {_MAX_PICKLE_BYTES}")
            data = archive.read(member)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as exc:
        raise ModelFileError(f"{path.name} is a damaged zip file: {what_is_wrong(exc)}") from exc
    except RuntimeError as exc:
        raise ModelFileError(f"{path.name} is an encrypted zip file") from exc
    return names_in(io.BytesIO(data), what=path.name)


def _old_kind(path: Path) -> TorchFile:
    with path.open("rb") as file:
        for _ in range(3):  # the magic number, the protocol, the machine
            names_in(file, what=path.name)
        return _by_names(names_in(file, what=path.name), container="old format")


def _plain_kind(path: Path, head: bytes) -> TorchFile | None:
    """A pickle of torch's objects that torch.save did not write; others are not ours."""
    names = names_in(io.BytesIO(head), what=path.name, partial=True)
    modules = {module.partition(".")[0] for module, _ in names}
    if "torch" not in modules or modules & {"sklearn", "joblib", "skorch"}:
        return None
    asks_for = tuple(f"{module}.{name}" for module, name in names)
    return TorchFile(kind=TorchKind.PICKLED, container="plain pickle", asks_for=asks_for)


def _by_names(names: list[tuple[str, str]], *, container: str) -> TorchFile:
    strange = tuple(
        f"{module}.{name}"
        for module, name in names
        if module not in (*_STATE_MODULES, *_NUMPY_MODULES)
        and (module, name) != ("torch.nn.parameter", "Parameter")
    )
    kind = TorchKind.PICKLED if strange else TorchKind.WEIGHTS
    return TorchFile(kind=kind, container=container, asks_for=strange)


def _is_safetensors(path: Path, head: bytes) -> bool:
    size = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= size <= _MAX_HEADER_BYTES:
        return False
    if size + 8 > path.stat().st_size:
        raise ModelFileError(f"{path.name} is a truncated safetensors file")
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(size)), dict)
        except ValueError:
            return False
