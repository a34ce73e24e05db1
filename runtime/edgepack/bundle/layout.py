"""Bundles in an OCI layout folder: a device's store, in which bundles share their blobs."""

import os
from collections.abc import Iterable
from pathlib import Path

from edgepack.bundle.blobs import LayoutBlobs, verified_chunks
from edgepack.bundle.bundle import Bundle, assemble
from edgepack.bundle.descriptor import Descriptor, is_digest
from edgepack.bundle.errors import ManifestError


def open_layout(
    folder: str | os.PathLike[str],
    digest: str,
    *,
    signatures: Iterable[str] = (),
    hash_blobs: bool = True,
) -> Bundle:
    """Open a bundle of which all blobs lie in `folder/blobs/sha256/HEX`.

    What else lies there is not looked at. `Bundle.read` verifies what it reads in any case.

    Args:
        folder: The layout.
        digest: The bundle digest.
        signatures: Digests of the signature manifests.
        hash_blobs: False compares sizes only and hashes no file but the JSON documents: for a
            store that was hashed when it was filled.

    Raises:
        BundleError: A blob is missing or is not what it must be.
    """
    source = LayoutBlobs(Path(folder))
    bundle = assemble(
        source, _present(source, digest), [_present(source, item) for item in signatures]
    )
    if hash_blobs:
        for blob in bundle.blobs():
            for _ in verified_chunks(source, blob):
                pass
    return bundle


def _present(source: LayoutBlobs, digest: str) -> Descriptor:
    if not is_digest(digest):
        raise ManifestError(f"digest must be sha256:HEX, got {digest[:80]!r}")
    return Descriptor(digest=digest, size_bytes=source.size_of(digest))
