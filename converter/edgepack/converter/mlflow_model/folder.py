"""What a folder's MLmodel file says: the model's own file, its signature and its input example."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from edgepack.converter.errors import ModelFileError, UnsupportedModelError, one_line
from edgepack.converter.sources.mlflow_folder import MODEL

# The flavours that say what the model is, and the keys that name its file or folder.
_WHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "sklearn": ("pickled_model",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "catboost": ("data",),
    "onnx": ("data",),
    "pytorch": ("model_data",),
    "keras": ("data",),
    "tensorflow": ("saved_model_dir", "data"),
}
# What lies in the folder that such a key names, if it names one.
_INSIDE: Final = (
    "model.pt2",
    "model.pth",
    "model.keras",
    "model.h5",
    "model.onnx",
    "model.pkl",
    "model",
)
_MAX_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a signature: its name, and "double" or another of MLflow's types."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowFolder:
    """What is in a folder.

    Attributes:
        flavour: "sklearn".
        model: The model's own file or folder.
        columns: The signature's inputs where they are columns, or empty.
        example: The input example as rows of cells, or None.
        example_columns: Its names, or empty.
    """

    flavour: str
    model: Path
    columns: tuple[Column, ...] = ()
    example: tuple[tuple[object, ...], ...] | None = None
    example_columns: tuple[str, ...] = ()


def read_folder(path: Path) -> MlflowFolder:
    """Read what MLmodel says.

    Raises:
        ModelFileError: It is damaged, or names a file that is not there.
        UnsupportedModelError: The model is of no flavour that edgepack converts.
    """
    try:
        said = yaml.safe_load(_read(path / MODEL))
    except (yaml.YAMLError, RecursionError) as exc:
        raise ModelFileError(f"{path.name}/{MODEL} is no YAML: {one_line(exc)}") from exc
    flavours = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavours, dict) or not flavours:
        raise ModelFileError(f"{path.name}/{MODEL} names no flavors")
    flavour = next((name for name in _WHERE if isinstance(flavours.get(name), dict)), None)
    if flavour is None:
        found = ", ".join(str(name)[:40] for name in list(flavours)[:5])
        raise UnsupportedModelError(
            f"{path.name} is an MLflow model of the flavor {found}; "
            f"edgepack converts {', '.join(_WHERE)}"
        )
    example, names = _example(path, said.get("saved_input_example_info"))
    return MlflowFolder(
        flavour=flavour,
        model=_model(path, flavour, flavours[flavour]),
        columns=_columns(said.get("signature")),
        example=example,
        example_columns=names,
    )


def _model(path: Path, flavour: str, options: Mapping[str, Any]) -> Path:
    said = next((options[key] for key in _WHERE[flavour] if options.get(key)), None)
    if not isinstance(said, str):
        raise ModelFileError(f"{path.name}/{MODEL} does not say which file the {flavour} model is")
    found = _inside(path, said)
    if found.is_dir() and not (found / "saved_model.pb").exists():
        inner = [found / name for name in _INSIDE if (found / name).exists()]
        if not inner:
            raise ModelFileError(f"{path.name}/{said[:80]} holds no model file")
        return inner[0]
    return found


def _inside(path: Path, said: str) -> Path:
    """A path that the folder names, which must lie inside it.

    Raises:
        ModelFileError: It does not, or is missing.
    """
    found = (path / said).resolve()
    if "\0" in said or not found.is_relative_to(path.resolve()):
        raise ModelFileError(f"{path.name}/{MODEL} names a file outside the folder")
    if not found.exists():
        raise ModelFileError(f"{path.name}/{said[:80]} is missing, and {MODEL} names it")
    return found


def _columns(signature: object) -> tuple[Column, ...]:
    """The signature's inputs, if they are columns; a signature that is none is not an error."""
    said = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        fields = json.loads(said) if isinstance(said, str) else []
    except ValueError:
        return ()
    columns = [
        Column(name=field["name"], kind=str(field.get("type")))
        for field in (fields if isinstance(fields, list) else [])
        if isinstance(field, dict)
        and isinstance(field.get("name"), str)
        and field.get("type") != "tensor"
    ]
    return tuple(columns) if isinstance(fields, list) and len(columns) == len(fields) else ()


def _example(
    path: Path, info: object
) -> tuple[tuple[tuple[object, ...], ...] | None, tuple[str, ...]]:
    """The input example, if it is a table or a matrix."""
    name = info.get("artifact_path") if isinstance(info, dict) else None
    if not isinstance(name, str):
        return None, ()
    try:
        said = json.loads(_read(_inside(path, name)))
    except ValueError:
        return None, ()
    rows = said.get("data") if isinstance(said, dict) else said
    names = said.get("columns") if isinstance(said, dict) else None
    if not isinstance(rows, list) or not _is_table(rows):
        return None, ()
    if not isinstance(names, list) or len(names) != len(rows[0]):
        names = []
    return tuple(tuple(row) for row in rows), tuple(str(item) for item in names)


def _is_table(rows: list[Any]) -> bool:
    """Whether a JSON list is one of rows of as many cells each."""
    cells = (str, int, float, type(None))
    return len(rows) > 0 and all(
        isinstance(row, list)
        and len(row) == len(rows[0]) > 0
        and all(isinstance(cell, cells) for cell in row)
        for row in rows
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ModelFileError(f"{path.name} has more than {_MAX_BYTES} bytes")
        return data.decode()
    except OSError as exc:
        raise ModelFileError(f"{path.name} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ModelFileError(f"{path.name} cannot be read as text") from exc
