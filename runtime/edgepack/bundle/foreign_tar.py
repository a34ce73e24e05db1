"""Read tar archives that other tools have written: only as much as an OCI layout needs.

Own times, owners, folders and extended headers are passed over. Whatever would make two readers
see two archives (links, names that stand twice, headers that rename or resize a member) is
refused. Python's `tarfile` is not used: it follows exactly those headers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgepack.bundle.blobs import ArchiveBlobs, Region, open_regular, read_chunks
from edgepack.bundle.errors import (
    ArchiveError,
    BundleLimitError,
    DuplicateError,
    LinkError,
    TraversalError,
    TruncatedError,
)
from edgepack.bundle.limits import MAX_BUNDLE_BYTES
from edgepack.bundle.tar_header import BLOCK_BYTES, member_bytes
from edgepack.trust.values import dataclass

MAX_FOREIGN_MEMBERS = 16 * 1024
MAX_EXTENDED_BYTES = 64 * 1024
_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_EXTENDED = (b"x", b"g")
_SPECIAL = (b"1", b"2", b"3", b"4", b"6")
_CHECKSUM = slice(148, 156)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    name: str
    kind: bytes
    region: Region


def foreign_members(path: Path) -> dict[str, Region]:
    """Find every regular file of a tar archive, by name without a leading `./`.

    Raises:
        BundleError: It is not such an archive, is too large, or holds something ambiguous.
    """
    with open_regular(path) as (file, size_bytes):
        if size_bytes > MAX_BUNDLE_BYTES:
            raise BundleLimitError(
                f"an archive must be at most {MAX_BUNDLE_BYTES} bytes, got {size_bytes}"
            )
        files: dict[str, Region] = {}
        folders: set[str] = set()
        for member in _members(file, size_bytes):
            if member.kind == _FOLDER:
                folders.add(member.name)
            elif member.name in files:
                raise DuplicateError(f"member {member.name[:80]!r} stands twice")
            else:
                files[member.name] = member.region
            if len(files) + len(folders) > MAX_FOREIGN_MEMBERS:
                raise BundleLimitError(f"an archive has at most {MAX_FOREIGN_MEMBERS} members")
        both = folders & files.keys()
        if both:
            raise DuplicateError(f"member {min(both)[:80]!r} is a file and a folder")
        return files


def foreign_blobs(path: Path, files: dict[str, Region]) -> ArchiveBlobs:
    """Make a source of the members that lie where an OCI layout has its blobs."""
    prefix = "blobs/sha256/"
    return ArchiveBlobs(
        path,
        {
            f"sha256:{name.removeprefix(prefix)}": region
            for name, region in files.items()
            if name.startswith(prefix)
        },
    )


def _members(file: BinaryIO, size_bytes: int) -> Iterator[_Member]:
    offset = 0
    while True:
        if size_bytes - offset < BLOCK_BYTES:
            raise TruncatedError(f"the archive ends at byte {size_bytes}, before its end mark")
        file.seek(offset)
        header = _exactly(file, BLOCK_BYTES)
        if not any(header):
            return
        if offset == 0 and header[:2] == b"\x1f\x8b":
            raise ArchiveError("the archive is compressed; it must be a plain tar")
        _check_sum(header, offset)
        kind, content_bytes = header[156:157], _size(header, offset)
        if content_bytes > size_bytes - offset - BLOCK_BYTES:
            raise TruncatedError(f"the archive ends at byte {size_bytes}, inside a member")
        if kind in _EXTENDED:
            _check_extended(file, content_bytes)
        else:
            yield _member(header, kind, offset, content_bytes)
        offset += member_bytes(content_bytes)


def _member(header: bytes, kind: bytes, offset: int, content_bytes: int) -> _Member:
    name = _name(header)
    if kind in _SPECIAL:
        raise LinkError(f"member {name[:80]!r} must be a regular file, got tar type {kind!r}")
    if kind not in (*_FILES, _FOLDER):
        raise ArchiveError(f"member {name[:80]!r} has the unknown tar type {kind!r}")
    if name.startswith("/") or ".." in name.split("/"):
        raise TraversalError(f"member {name[:80]!r} leads out of the archive")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    region = Region(offset=offset + BLOCK_BYTES, size_bytes=content_bytes)
    return _Member(name="/".join(parts), kind=kind, region=region)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    if prefix and header[257:263] == b"ustar\0":  # GNU's own format keeps other things there
        name = prefix + b"/" + name
    return name.decode("latin-1")


def _check_sum(header: bytes, offset: int) -> None:
    counted = header[: _CHECKSUM.start] + b" " * 8 + header[_CHECKSUM.stop :]
    if _octal(header[_CHECKSUM]) != sum(counted):
        raise ArchiveError(f"there is no tar header at byte {offset}")


def _size(header: bytes, offset: int) -> int:
    size_bytes = _octal(header[124:136])
    if size_bytes is None:
        raise ArchiveError(f"the tar header at byte {offset} has no size in octal digits")
    return size_bytes


def _octal(field: bytes) -> int | None:
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits or digits.strip(b"01234567"):
        return None
    return int(digits, 8)


def _check_extended(file: BinaryIO, content_bytes: int) -> None:
    if content_bytes > MAX_EXTENDED_BYTES:
        raise BundleLimitError(
            f"an extended tar header must be at most {MAX_EXTENDED_BYTES} bytes, "
            f"got {content_bytes}"
        )
    for key in _extended_keys(_exactly(file, content_bytes)):
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU."):
            raise ArchiveError(f"an extended tar header must not set {key[:40].decode('latin-1')}")


def _extended_keys(data: bytes) -> Iterator[bytes]:
    # "LENGTH KEY=VALUE\n", LENGTH counting the whole record (POSIX.1-2001, pax)
    while data:
        length, _, _ = data.partition(b" ")
        if not 0 < len(length) <= 5 or length.strip(b"0123456789"):
            raise ArchiveError("an extended tar header is malformed")
        record, data = data[: int(length)], data[int(length) :]
        if len(record) != int(length) or not record.endswith(b"\n") or b"=" not in record:
            raise ArchiveError("an extended tar header is malformed")
        yield record[len(length) + 1 :].partition(b"=")[0]


def _exactly(file: BinaryIO, size_bytes: int) -> bytes:
    return b"".join(read_chunks(file, size_bytes, "the archive"))
