"""Take a bundle from any OCI image layout, as registry tools write them, into its own form."""

import os
from collections.abc import Iterator
from pathlib import Path

from edgepack.bundle import media_types
from edgepack.bundle.archive import write_archive
from edgepack.bundle.blobs import (
    BlobSource,
    LayoutBlobs,
    open_regular,
    read_chunks,
    read_verified,
)
from edgepack.bundle.bundle import Bundle, assemble
from edgepack.bundle.descriptor import Descriptor
from edgepack.bundle.documents import expect, parse_object
from edgepack.bundle.errors import LinkError, ManifestError, OversizedDocumentError
from edgepack.bundle.foreign_tar import foreign_blobs, foreign_members
from edgepack.bundle.index import INDEX_NAME, LAYOUT_NAME, Entry, parse_index
from edgepack.bundle.limits import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES
from edgepack.bundle.manifest import parse_signature_manifest
from edgepack.bundle.pack import bundle_filename
from edgepack.bundle.verify import verify_bundle
from edgepack.trust import Root
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    header: bytes
    index: bytes
    blobs: BlobSource


def import_layout(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    root: Root | None = None,
) -> Bundle:
    """Write the one bundle that an OCI layout holds as a `.edgepack` file.

    Signatures of the bundle that the layout's index lists come along; everything else in the
    layout is left behind.

    Args:
        source: A layout's folder, or an uncompressed tar of one, with whatever times, owners,
            folders and order.
        destination: The file to write; or a folder, to get NAME-VERSION.edgepack in it.
        root: If given, the bundle's signature must be valid, else nothing is written.

    Raises:
        BundleError: There is no bundle in it, or more than one, or it is damaged.
        UntrustedBundleError: A root was given and does not vouch for it.
        BundleWriteError: The disk refused.
    """
    layout = _open(Path(source))
    header = parse_object(layout.header, what=LAYOUT_NAME, max_bytes=MAX_INDEX_BYTES)
    expect(header, "imageLayoutVersion", "1.0.0", what=LAYOUT_NAME)
    model, signatures = _find(layout)
    bundle = assemble(layout.blobs, model, signatures)
    if root is not None:
        verify_bundle(bundle, root)
    path = Path(destination)
    if path.is_dir():
        path = path / bundle_filename(bundle.contract)
    return write_archive(path, layout.blobs, model, signatures)


def _open(source: Path) -> _Layout:
    if not source.is_dir():
        files = foreign_members(source)
        blobs = foreign_blobs(source, files)
        documents = []
        for name in (LAYOUT_NAME, INDEX_NAME):
            if name not in files:
                raise ManifestError(f"{source} must be an OCI layout, but it has no {name}")
            with open_regular(source) as (file, _):
                file.seek(files[name].offset)
                documents.append(_bounded(name, read_chunks(file, files[name].size_bytes, name)))
        return _Layout(header=documents[0], index=documents[1], blobs=blobs)
    for folder in (source / "blobs", source / "blobs" / "sha256"):
        if folder.is_symlink():
            raise LinkError(f"{folder} must be a folder, got a link")
    documents = []
    for name in (LAYOUT_NAME, INDEX_NAME):
        with open_regular(source / name, follow_links=False) as (file, size_bytes):
            documents.append(_bounded(name, read_chunks(file, size_bytes, name)))
    return _Layout(header=documents[0], index=documents[1], blobs=LayoutBlobs(source))


def _bounded(name: str, chunks: Iterator[bytes]) -> bytes:
    data = next(chunks, b"")  # one chunk is larger than any such document may be
    if len(data) > MAX_INDEX_BYTES:
        raise OversizedDocumentError(f"{name} must be at most {MAX_INDEX_BYTES} bytes, got more")
    return data


def _find(layout: _Layout) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    models: set[Descriptor] = set()
    signatures: set[Descriptor] = set()
    for entry in _entries(layout):
        if entry.media_type != media_types.MANIFEST or entry.blob.size_bytes > MAX_MANIFEST_BYTES:
            continue
        data = read_verified(layout.blobs, entry.blob)
        kind = parse_object(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
        if kind.get("artifactType") == media_types.MODEL_ARTIFACT:
            models.add(entry.blob)
        elif kind.get("artifactType") == media_types.SIGNATURE_ARTIFACT:
            signatures.add(entry.blob)
    if len(models) != 1:
        raise ManifestError(f"the layout must hold exactly one model, got {len(models)}")
    (model,) = models
    ours = [
        signature
        for signature in sorted(signatures)
        if parse_signature_manifest(read_verified(layout.blobs, signature)).subject == model
    ]
    return model, tuple(ours)


def _entries(layout: _Layout) -> Iterator[Entry]:
    for entry in parse_index(layout.index):
        yield entry
        # A registry without the referrers API keeps them in an index with the tag sha256-HEX.
        if entry.media_type == media_types.INDEX and entry.blob.size_bytes <= MAX_INDEX_BYTES:
            yield from parse_index(read_verified(layout.blobs, entry.blob))
