"""What a body is: its type and its compression."""

import zlib
from typing import Final

from edgepack.agent.serve.http.messages import Head, HttpError

# curl's `-d` says "form" of whatever it sends, and the examples of TensorFlow Serving use it.
_TYPES: Final = frozenset(
    {
        b"",
        b"application/json",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",
        b"text/plain",
    }
)
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def check_body(head: Head) -> None:
    """Refuse what no one here can read, before it is sent.

    Raises:
        HttpError: 415.
    """
    kind, _, parameters = head.headers.get(b"content-type", b"").partition(b";")
    if kind.strip().lower() not in _TYPES:
        shown = kind[:80].decode("latin-1")
        raise HttpError(
            415, f"Content-Type must be application/json or application/octet-stream, got {shown}"
        )
    charset = parameters.strip().lower().partition(b"charset=")[2].strip(b'"')
    if charset not in (b"", b"utf-8", b"utf8", b"us-ascii"):
        raise HttpError(415, f"JSON must be UTF-8, got {charset[:40].decode('latin-1')}")
    encoding = _encoding(head)
    if encoding not in (b"", b"identity") and encoding not in _WINDOW_BITS:
        shown = encoding[:80].decode("latin-1")
        raise HttpError(415, f"Content-Encoding must be gzip or deflate, got {shown}")


def plain_body(head: Head, body: bytes | bytearray, max_bytes: int) -> bytes | bytearray:
    """Undo a body's compression.

    Raises:
        HttpError: It is damaged (400), or too large (413).
    """
    bits = _WINDOW_BITS.get(_encoding(head))
    if bits is None:
        return body
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise HttpError(400, f"body cannot be decompressed: {exc}") from exc
    if len(plain) > max_bytes:
        raise HttpError(413, f"body must have at most {max_bytes} bytes when decompressed")
    if not inflater.eof or inflater.unused_data:
        raise HttpError(400, "body cannot be decompressed: it ends early, or more follows")
    return plain


def json_size(head: Head) -> int | None:
    """The size of the JSON in front of binary tensors; None where all is JSON.

    Raises:
        HttpError: It is not a number.
    """
    text = head.headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 12:
        shown = text[:40].decode("latin-1")
        raise HttpError(400, f"Inference-Header-Content-Length must be a number, got {shown}")
    return int(text)


def _encoding(head: Head) -> bytes:
    return head.headers.get(b"content-encoding", b"").strip().lower()
