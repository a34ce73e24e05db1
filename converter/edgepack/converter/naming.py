"""Names and versions that nobody gave."""

import re
from pathlib import Path

from edgepack.bundle.contract_rules import is_name, is_version
from edgepack.converter.errors import RequestError

FIRST_VERSION = "0.1.0"
_LONGEST_NAME = 64
_PACKINGS = (".gz", ".bz2", ".xz", ".lzma", ".z")
_SUFFIXES = (
    *(".joblib", ".pkl", ".pickle", ".skops", ".onnx", ".tflite", ".keras", ".h5", ".hdf5"),
    *(".pt", ".pth", ".pt2", ".safetensors", ".ubj", ".json", ".cbm", ".txt"),
    *_PACKINGS,
)


def model_name(given: str | None, path: Path) -> str:
    """The name that was given, or one made from the file's.

    >>> model_name(None, Path("pump model v2.joblib.gz"))
    'pump-model-v2'

    Raises:
        RequestError: The name that was given is not one.
    """
    if given is not None:
        if not is_name(given):
            raise RequestError(f"name must be 1 to 64 of [A-Za-z0-9_-], got {given[:80]!r}")
        return given
    stem = path.name
    while stem.lower().endswith(_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:_LONGEST_NAME]
    return name or "model"


def model_version(given: str | None, name: str, folder: Path) -> str:
    """The version that was given, or the next patch after those in a folder.

    Raises:
        RequestError: The version that was given is not SemVer.
    """
    if given is not None:
        if not is_version(given):
            raise RequestError(f"version must be SemVer (1.0.0), got {given[:80]!r}")
        return given
    found = []
    for path in folder.glob(f"{name}-*.edgepack"):
        version = path.name.removeprefix(f"{name}-").removesuffix(".edgepack")
        if is_version(version):
            major, minor, patch = re.split(r"[-+]", version)[0].split(".")
            found.append((int(major), int(minor), int(patch)))
    if not found:
        return FIRST_VERSION
    major_number, minor_number, patch_number = max(found)
    return f"{major_number}.{minor_number}.{patch_number + 1}"
