"""What Keras files are on the disk: configurations read without Keras, mended copies of files."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, Final

import h5py

from edgepack.converter.errors import ModelFileError, UnsafeModelError
from edgepack.converter.keras_model.config import Config
from edgepack.converter.sources.keras_file import CONFIG, HDF5_MAGIC, WEIGHTS

_MAX_CONFIG_BYTES: Final = 64 << 20
_MAX_MEMBER_BYTES: Final = 8 << 30


def is_hdf5(path: Path) -> bool:
    """Tell an HDF5 file from a `.keras` file."""
    with path.open("rb") as file:
        return file.read(len(HDF5_MAGIC)) == HDF5_MAGIC


def read_config(path: Path) -> Config:
    """The configuration of the model in a file.

    Raises:
        ModelFileError: The file is damaged, or holds no model.
        UnsafeModelError: Its weights lie in other files.
    """
    try:
        text = _hdf5_config(path) if is_hdf5(path) else _zip_config(path)
        config = json.loads(text)
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as exc:
        if "password required" in str(exc):
            raise ModelFileError(f"{path.name} is an encrypted zip file") from exc
        raise ModelFileError(f"{path.name} is damaged: {' '.join(str(exc).split())[:120]}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelFileError(f"{path.name}: its configuration is no JSON") from exc
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ModelFileError(f"{path.name}: its configuration is no model")
    return config


def with_config(path: Path, config: Config, folder: Path) -> Path:
    """A copy of a file with another configuration."""
    text = json.dumps(config)
    if is_hdf5(path):
        copy = folder / "mended.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = text
        return copy
    copy = folder / "mended.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for member in old.infolist():
            if member.is_dir() or member.filename == CONFIG:
                continue
            if member.file_size > _MAX_MEMBER_BYTES:
                raise ModelFileError(f"{path.name}: {member.filename[:60]} is too large")
            with old.open(member) as source, new.open(member.filename, "w") as target:
                shutil.copyfileobj(source, target)
        new.writestr(CONFIG, text)
    return copy


def _hdf5_config(path: Path) -> str:
    with h5py.File(path, "r") as file:
        config: Any = file.attrs.get("model_config")
        if config is None:
            raise ModelFileError(_without_model(path, file))
        _check_inside(file, path)
        return config.decode() if isinstance(config, bytes) else str(config)


def _without_model(path: Path, file: h5py.File) -> str:
    is_weights = "layer_names" in file.attrs or "layers" in file or "vars" in file
    if not is_weights:
        return f"{path.name} is an HDF5 file, but holds no Keras model"
    return (
        f"{path.name} holds weights only, not the model that they belong to: in Python, make the "
        f"model, then model.load_weights({path.name!r}); model.save('model.keras'), and convert "
        "that"
    )


def _zip_config(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise UnsafeModelError(f"{path.name} holds two members of one name; refused")
        if CONFIG in names and archive.getinfo(CONFIG).file_size > _MAX_CONFIG_BYTES:
            raise ModelFileError(f"{path.name}: {CONFIG} is too large")
        with archive.open(WEIGHTS) as weights, h5py.File(weights, "r") as file:
            _check_inside(file, path)
        return archive.read(CONFIG).decode()


def _check_inside(file: h5py.File, path: Path) -> None:
    """HDF5 may name other files of the disk as its contents: no model needs that."""

    def visit(name: str, link: Any) -> None:  # noqa: ANN401  (h5py is not followed)
        if isinstance(link, h5py.ExternalLink):
            outside.append(name)

    def look(name: str, item: Any) -> None:  # noqa: ANN401
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            outside.append(name)

    outside: list[str] = []
    file.visititems_links(visit)
    file.visititems(look)
    if outside:
        raise UnsafeModelError(
            f"{path.name} keeps {outside[0][:60]!r} in another file, which was not read"
        )
