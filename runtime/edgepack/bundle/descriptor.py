"""Content by its digest: `sha256:` and 64 lower-case hex digits."""

import hashlib
import re

from edgepack.bundle.errors import DigestError
from edgepack.trust.values import dataclass

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Descriptor:
    """A blob: its digest and its size.

    Attributes:
        digest: "sha256:" and 64 hex digits.
        size_bytes: Its exact size.
    """

    digest: str
    size_bytes: int

    @property
    def hex(self) -> str:
        """The 64 hex digits, which are also its file's name in a layout."""
        return self.digest.removeprefix(_PREFIX)


def is_digest(text: object) -> bool:
    """Tell whether this is a digest, spelled the one way that it can be."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """Compute the digest of some bytes."""
    return _PREFIX + hashlib.sha256(data).hexdigest()


def describe(data: bytes) -> Descriptor:
    """Make the descriptor of some bytes."""
    return Descriptor(digest=digest_of(data), size_bytes=len(data))


def check_blob(descriptor: Descriptor, data: bytes) -> bytes:
    """Give the bytes back if they are the ones that the descriptor names.

    Raises:
        DigestError: They are others.
    """
    if len(data) != descriptor.size_bytes:
        raise DigestError(
            f"blob {descriptor.digest} must have {descriptor.size_bytes} bytes, got {len(data)}",
            digest=descriptor.digest,
        )
    got = digest_of(data)
    if got != descriptor.digest:
        raise DigestError(
            f"blob {descriptor.digest} has the digest {got}", digest=descriptor.digest
        )
    return data
