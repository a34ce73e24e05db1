"""The tar header of a bundle's member: ustar (POSIX.1-1988), everything fixed but name and size.

Reading is rendering: a header is right if it equals the one that its name and size would have.
"""

import re

from edgepack.bundle.errors import LinkError, NotCanonicalError, TraversalError

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
_NAME_BYTES = 100
_SIZE = re.compile(rb"[0-7]{11}\0")
_FILE = b"0"
_PORTABLE = re.compile(rb"[A-Za-z0-9._/-]+")


def padding_bytes(size_bytes: int) -> int:
    """Tell how many zero bytes follow a member's content."""
    return -size_bytes % BLOCK_BYTES


def member_bytes(size_bytes: int) -> int:
    """Tell how many bytes a member takes in the file: header, content and padding."""
    return BLOCK_BYTES + size_bytes + padding_bytes(size_bytes)


def render_header(name: str, size_bytes: int) -> bytes:
    """Write the header of a regular file: mode 0644, owner 0, time 0, no owner names."""
    fields = (
        name.encode("ascii").ljust(_NAME_BYTES, b"\0"),
        b"0000644\0" + b"0000000\0" + b"0000000\0",  # mode, uid, gid
        b"%011o\0" % size_bytes,
        b"00000000000\0",  # mtime
        b"        ",  # checksum: counted as spaces
        _FILE + bytes(100),  # type, link name
        b"ustar\0" + b"00",
        bytes(32 + 32 + 8 + 8 + 155 + 12),  # owner names, device numbers, prefix, rest
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def parse_header(header: bytes, offset: int) -> tuple[str, int]:
    """Read a canonical header.

    Returns:
        The member's name and size in bytes.

    Raises:
        LinkError: It is not a regular file's.
        TraversalError: The name leads out of the archive.
        NotCanonicalError: Some other bit is not as it must be.
    """
    name = header[:_NAME_BYTES].rstrip(b"\0")
    kind = header[156:157]
    if kind in (b"1", b"2", b"3", b"4", b"6"):
        raise LinkError(f"member at byte {offset} must be a regular file, got tar type {kind!r}")
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise TraversalError(f"member {name[:80]!r} leads out of the archive")
    size = header[124:136]
    if _SIZE.fullmatch(size) and _PORTABLE.fullmatch(name):
        text, size_bytes = name.decode(), int(size[:11], 8)
        if render_header(text, size_bytes) == header:
            return text, size_bytes
    raise NotCanonicalError(f"the tar header at byte {offset} is not in its canonical form")
