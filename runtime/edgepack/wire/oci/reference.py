"""`oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`: names of bundles in registries. Pure."""

import re

from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

SCHEME = "oci://"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where a bundle is in a registry.

    Attributes:
        host: HOST or HOST:PORT.
        repository: Lower-case path in the registry.
        tag: A name that may move, or None.
        digest: "sha256:HEX" of the manifest, or None.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.host}/{self.repository}{end}"


def parse_reference(text: str) -> Reference:
    """Parse a reference.

    Raises:
        WireError: It is none.
    """
    wrong = WireError(f"must be oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST], got {text[:80]!r}")
    if not text.startswith(SCHEME) or len(text) > _MAX:
        raise wrong
    host, slash, path = text.removeprefix(SCHEME).partition("/")
    if not slash or not _HOST.fullmatch(host):
        raise wrong
    tag: str | None = None
    path, at, digest = path.partition("@")
    if not at:
        path, colon, found = path.partition(":")
        tag = found if colon else None
    if not _REPOSITORY.fullmatch(path):
        raise wrong
    if (at and not _DIGEST.fullmatch(digest)) or (tag is not None and not _TAG.fullmatch(tag)):
        raise wrong
    return Reference(host=host, repository=path, tag=tag, digest=digest if at else None)


def tag_of_version(version: str) -> str:
    """The tag of a SemVer: "+" is none of a tag's characters (Helm writes "_" too)."""
    return version.replace("+", "_")[:128]


def signature_tag(digest: str) -> str:
    """The tag under which a registry without the referrers API keeps what refers to a manifest."""
    return digest.replace(":", "-")
