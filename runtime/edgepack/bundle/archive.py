"""The archive: an OCI image layout in one uncompressed tar, every bit of it prescribed."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from edgepack.bundle.atomic_file import write_atomically
from edgepack.bundle.blobs import (
    ArchiveBlobs,
    BlobSource,
    Region,
    open_regular,
    read_chunks,
    verified_chunks,
)
from edgepack.bundle.bundle import Bundle, assemble
from edgepack.bundle.descriptor import Descriptor
from edgepack.bundle.errors import (
    BundleLimitError,
    DuplicateError,
    ExtraBlobError,
    NotCanonicalError,
    OversizedDocumentError,
    TrailingBytesError,
    TruncatedError,
)
from edgepack.bundle.index import (
    INDEX_NAME,
    LAYOUT,
    LAYOUT_NAME,
    parse_bundle_index,
    render_index,
)
from edgepack.bundle.limits import MAX_BUNDLE_BYTES, MAX_INDEX_BYTES, MAX_MEMBERS
from edgepack.bundle.tar_header import (
    BLOCK_BYTES,
    END,
    member_bytes,
    padding_bytes,
    parse_header,
    render_header,
)
from edgepack.trust.values import dataclass

BLOB_PREFIX = "blobs/sha256/"
_MAGIC = slice(257, 262)
_HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What an archive says that it holds; nothing of it is verified.

    Attributes:
        model: The model's manifest.
        signatures: The manifests of its signatures.
        regions: Where each blob lies, by digest.
    """

    model: Descriptor
    signatures: tuple[Descriptor, ...]
    regions: Mapping[str, Region]


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a `.edgepack` file and check every bit of it; signatures are left to `verify_bundle`.

    The file is read once, in pieces; of its blobs only the JSON documents are held in memory.

    Raises:
        BundleError: One of its subclasses says what is wrong.
    """
    path = Path(path)
    with open_regular(path) as (file, size_bytes):
        listing, index = _list(file, size_bytes, path.name)
    source = ArchiveBlobs(path, listing.regions)
    bundle = assemble(source, listing.model, listing.signatures)
    if index != render_index(listing.model, bundle.contract.version, listing.signatures):
        raise NotCanonicalError(f"{INDEX_NAME} is not in its canonical form")
    extra = source.regions.keys() - {blob.digest for blob in bundle.blobs()}
    if extra:
        raise ExtraBlobError(f"blob {min(extra)} is in the archive, but nothing names it")
    for blob in bundle.blobs():
        for _ in verified_chunks(source, blob):
            pass
    return bundle


def list_archive(file: BinaryIO, size_bytes: int, name: str) -> Listing:
    """Read an archive's headers and index, and nothing else of it.

    Args:
        file: The archive, wherever it is; it must be able to seek.
        size_bytes: Its size.
        name: What to call it in an error.

    Raises:
        BundleError: It is no bundle's archive. No blob was looked at.
    """
    return _list(file, size_bytes, name)[0]


def _list(file: BinaryIO, size_bytes: int, name: str) -> tuple[Listing, bytes]:
    if size_bytes > MAX_BUNDLE_BYTES:
        raise BundleLimitError(f"a bundle is at most {MAX_BUNDLE_BYTES} bytes, got {size_bytes}")
    _check_magic(file, name)
    regions = _members(file, size_bytes)
    layout, index = (_document(file, regions, name) for name in (LAYOUT_NAME, INDEX_NAME))
    check_layout(layout)
    model, signatures = parse_bundle_index(index)
    listing = Listing(model=model, signatures=signatures, regions=_blob_regions(regions))
    return listing, index


def check_layout(document: bytes) -> None:
    """Refuse an `oci-layout` that is not the one that there is.

    Raises:
        NotCanonicalError: It is another.
    """
    if document != LAYOUT:
        raise NotCanonicalError(f"{LAYOUT_NAME} must be {LAYOUT.decode()}, got something else")


def _check_magic(file: BinaryIO, name: str) -> None:
    """Tell somebody who took the wrong file so, before any talk of members and bytes."""
    start = file.read(BLOCK_BYTES)
    file.seek(0)
    if len(start) == BLOCK_BYTES and start[_MAGIC] != b"ustar":
        raise NotCanonicalError(f"{name} is not an edgepack bundle: it is no tar archive")


def write_archive(
    path: Path,
    source: BlobSource,
    manifest: Descriptor,
    signatures: tuple[Descriptor, ...],
) -> Bundle:
    """Write a bundle's archive atomically: another reader sees the old file or the new one.

    Returns:
        The bundle, as read from the new file.

    Raises:
        BundleError: The blobs are no bundle. Then nothing is written.
        BundleWriteError: The disk refused.
    """
    bundle = assemble(source, manifest, signatures)
    index = render_index(
        manifest, bundle.contract.version, tuple(ref.manifest for ref in bundle.signatures)
    )
    if len(index) > MAX_INDEX_BYTES:
        raise OversizedDocumentError(f"{INDEX_NAME} must be at most {MAX_INDEX_BYTES} bytes")
    with write_atomically(path) as file:
        for piece in _pieces(bundle, index):
            file.write(piece)
    return open_bundle(path)


def _pieces(bundle: Bundle, index: bytes) -> Iterator[bytes]:
    for name, data in ((LAYOUT_NAME, LAYOUT), (INDEX_NAME, index)):
        yield render_header(name, len(data)) + data + bytes(padding_bytes(len(data)))
    for blob in bundle.blobs():
        yield render_header(BLOB_PREFIX + blob.hex, blob.size_bytes)
        yield from verified_chunks(bundle.source, blob)
        yield bytes(padding_bytes(blob.size_bytes))
    yield END


def _members(file: BinaryIO, size_bytes: int) -> dict[str, Region]:
    regions: dict[str, Region] = {}
    offset = 0
    while True:
        file.seek(offset)
        header = _exactly(file, min(BLOCK_BYTES, size_bytes - offset))
        if len(header) < BLOCK_BYTES:
            raise TruncatedError(f"the archive ends at byte {size_bytes}, before its end mark")
        if header == bytes(BLOCK_BYTES):
            _check_end(file, offset, size_bytes)
            break
        name, content_bytes = parse_header(header, offset)
        if content_bytes > size_bytes - offset - BLOCK_BYTES:
            raise TruncatedError(
                f"the archive ends at byte {size_bytes}, inside member {name[:80]!r}"
            )
        check_member_name(name, regions)
        regions[name] = Region(offset=offset + BLOCK_BYTES, size_bytes=content_bytes)
        file.seek(offset + BLOCK_BYTES + content_bytes)
        padding = _exactly(file, padding_bytes(content_bytes))
        if padding.strip(b"\0"):
            raise NotCanonicalError(f"the padding after member {name[:80]!r} must be zero")
        offset += member_bytes(content_bytes)
    for name in (LAYOUT_NAME, INDEX_NAME):
        if name not in regions:
            raise NotCanonicalError(f"member {name} is missing")
    return regions


def check_member_name(name: str, regions: Collection[str]) -> None:
    """Refuse a member that may not follow those that came before it.

    Raises:
        BundleError: It stands twice, is out of order, or is nothing that a bundle has.
    """
    if name in regions:
        raise DuplicateError(f"member {name[:80]!r} stands twice")
    if len(regions) >= MAX_MEMBERS:
        raise BundleLimitError(f"a bundle has at most {MAX_MEMBERS} members, got more")
    expected = (LAYOUT_NAME, INDEX_NAME)[len(regions) : len(regions) + 1]
    if expected:
        if name != expected[0]:
            raise NotCanonicalError(
                f"member {len(regions) + 1} must be {expected[0]}, got {name[:80]!r}"
            )
        return
    hex_part = name.removeprefix(BLOB_PREFIX)
    if hex_part == name or len(hex_part) != 64 or not _HEX_DIGITS.issuperset(hex_part):
        raise ExtraBlobError(f"member {name[:80]!r} is not a blob ({BLOB_PREFIX}HEX)")
    *_, last = regions
    if last.startswith(BLOB_PREFIX) and name < last:
        raise NotCanonicalError(f"member {name[:80]!r} must stand before {last!r}")


def _check_end(file: BinaryIO, offset: int, size_bytes: int) -> None:
    left = size_bytes - offset
    if left < len(END):
        raise TruncatedError(f"the archive ends at byte {size_bytes}, inside its end mark")
    file.seek(offset)
    if _exactly(file, len(END)) != END:
        raise NotCanonicalError(f"the end mark at byte {offset} must be {len(END)} zero bytes")
    if left > len(END):
        raise TrailingBytesError(
            f"the archive must end at byte {offset + len(END)}, got {left - len(END)} bytes more"
        )


def _document(file: BinaryIO, regions: dict[str, Region], name: str) -> bytes:
    region = regions[name]
    if region.size_bytes > MAX_INDEX_BYTES:
        raise OversizedDocumentError(
            f"{name} must be at most {MAX_INDEX_BYTES} bytes, got {region.size_bytes}"
        )
    file.seek(region.offset)
    return _exactly(file, region.size_bytes)


def _exactly(file: BinaryIO, size_bytes: int) -> bytes:
    return b"".join(read_chunks(file, size_bytes, "the archive"))


def _blob_regions(regions: dict[str, Region]) -> dict[str, Region]:
    return {
        f"sha256:{name.removeprefix(BLOB_PREFIX)}": region
        for name, region in regions.items()
        if name.startswith(BLOB_PREFIX)
    }
