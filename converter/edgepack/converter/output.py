"""Where the bundle will go, checked before any work is done."""

import os
from pathlib import Path

from edgepack.converter.errors import OutputError, RequestError


def check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written.

    Raises:
        OutputError: It cannot be written.
        RequestError: It is a file, or was taken for one.
    """
    if folder.suffix == ".edgepack" and not folder.is_dir():
        raise RequestError(
            f"output must be a folder for NAME-VERSION.edgepack, got {folder}, which looks like "
            "the bundle itself: --name and --version make its name"
        )
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise RequestError(f"output must be a folder, got {existing}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"output folder {folder} cannot be written")


def check_free(folder: Path, filename: str, *, overwrite: bool) -> None:
    """Refuse a bundle's name that is taken.

    Raises:
        RequestError: A bundle of that name and version is there already.
    """
    path = folder / filename
    if path.exists() and not overwrite:
        raise RequestError(
            f"{path} is there already; give another --version, or --overwrite to replace it"
        )
