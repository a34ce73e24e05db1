"""Write a bundle's files as ordinary files."""

import os
from pathlib import Path

from edgepack.bundle.atomic_file import fill_folder_atomically
from edgepack.bundle.blobs import verified_chunks
from edgepack.bundle.bundle import Bundle


def extract_bundle(bundle: Bundle, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every file of a bundle under a folder: all of them, or nothing.

    Args:
        bundle: The bundle; every file is verified once more while it is written.
        folder: Must not exist, or be empty.

    Returns:
        The files, in the order of the manifest: `folder/contract.json` first.

    Raises:
        DestinationError: There is something at `folder`.
        BundleError: The bundle's bytes are gone or have changed since it was opened.
        BundleWriteError: The disk refused.
    """
    folder = Path(folder)
    with fill_folder_atomically(folder) as temporary:
        for layer in bundle.manifest.layers:
            path = temporary / layer.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for chunk in verified_chunks(bundle.source, layer.blob):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
    return [folder / layer.path for layer in bundle.manifest.layers]
