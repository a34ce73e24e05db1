"""What root.json says: its fields and rules. Nothing here has looked at a signature.

`edgepack.trust.root` does that; `edgepack.trust.rotation` makes the next one.
"""

import re
from collections.abc import Mapping

from edgepack.trust import dsse, strict_json
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError, RootError
from edgepack.trust.keys import PUBLIC_KEY_BYTES, PublicKey
from edgepack.trust.payload_types import ROOT_PAYLOAD_TYPE
from edgepack.trust.values import dataclass

ROOT = "root"
RELEASE = "release"
DEPLOY = "deploy"
ROLES = (ROOT, RELEASE, DEPLOY)

FORMAT = "1.0"
MAX_ROOT_BYTES = dsse.MAX_ENVELOPE_BYTES
MAX_KEYS = 64
MAX_PATTERNS = 64
MAX_VERSION = 2**31 - 1
_HEX_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FORMAT = re.compile(r"1\.(0|[1-9][0-9]{0,5})", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9_*?-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who may sign one kind of document.

    Attributes:
        keys: Key ids, none twice.
        threshold: How many of them must sign.
        models: For the release role, shell patterns of the names of the models that it may sign;
            None stands for every model.
    """

    keys: tuple[str, ...]
    threshold: int = 1
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One public key: `ed25519`, and its 32 bytes in lower-case hex."""

    type: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RootDocument:
    """The payload of root.json.

    Attributes:
        format: "1.0".
        version: 1 for the first, one more for each that follows.
        keys: By key id; more than the roles name is allowed.
        roles: `root`, `release` and `deploy`.
    """

    format: str
    version: int
    keys: dict[str, KeyEntry]
    roles: dict[str, Role]


def read_document(data: bytes) -> RootDocument:
    """Read what a root.json says WITHOUT looking at any signature.

    Raises:
        RootError: It is malformed, or its roles do not hold together.
    """
    try:
        payload = dsse.unverified_payload(data, ROOT_PAYLOAD_TYPE)
        document = decode(
            RootDocument,
            strict_json.parse(payload, what="root.json", max_bytes=MAX_ROOT_BYTES),
            what="root.json",
            ignore_unknown=True,
        )
    except DocumentError as exc:
        raise RootError(str(exc)) from exc
    check_document(document)
    return document


def check_document(document: RootDocument) -> None:
    """Refuse a root whose roles do not hold together.

    Raises:
        RootError: An unknown key, a threshold out of reach, a wrong field.
    """
    problems = _problems(document)
    if problems:
        raise RootError(f"root.json: {'; '.join(problems[:5])}")


def render_document(document: RootDocument) -> bytes:
    """The canonical payload to sign.

    Raises:
        RootError: Its roles do not hold together.
    """
    check_document(document)
    return strict_json.render(encode(document))


def used_keys(document: RootDocument) -> dict[str, PublicKey]:
    """The keys that some role names, by key id."""
    named = {key_id for name in ROLES for key_id in document.roles[name].keys}
    return {
        key_id: PublicKey(bytes.fromhex(key.public))
        for key_id, key in sorted(document.keys.items())
        if key_id in named
    }


def _problems(document: RootDocument) -> list[str]:
    if not _FORMAT.fullmatch(document.format):
        return [f"format must be 1.x, got {document.format[:20]!r}"]
    found = []
    if not 1 <= document.version <= MAX_VERSION:
        found.append(f"version must be 1 to {MAX_VERSION}, got {document.version}")
    if len(document.keys) > MAX_KEYS:
        found.append(f"keys must be at most {MAX_KEYS}, got {len(document.keys)}")
    for key_id, key in document.keys.items():
        found.extend(_key_problems(key_id, key))
    for name in ROLES:
        if name in document.roles:
            found.extend(_role_problems(name, document.roles[name], document.keys))
        else:
            found.append(f"role {name} is missing")
    return found


def _key_problems(key_id: str, key: KeyEntry) -> list[str]:
    shown = key_id[:12]
    if key.type != "ed25519":
        return [f"key {shown!r} must have type ed25519, got {key.type[:20]!r}"]
    if not _HEX_KEY.fullmatch(key.public):
        return [f"key {shown!r} must be {PUBLIC_KEY_BYTES} bytes in lower-case hex"]
    if PublicKey(bytes.fromhex(key.public)).key_id != key_id:
        return [f"key {shown!r} must have the SHA-256 of its bytes as its id"]
    return []


def _role_problems(name: str, role: Role, keys: Mapping[str, KeyEntry]) -> list[str]:
    found = []
    if len(set(role.keys)) != len(role.keys):
        found.append(f"role {name} names a key twice")
    unknown = [key_id for key_id in role.keys if key_id not in keys]
    if unknown:
        found.append(f"role {name} names an unknown key {unknown[0][:12]!r}")
    if not 1 <= role.threshold <= len(role.keys):
        found.append(f"role {name}: threshold must be 1 to {len(role.keys)}, got {role.threshold}")
    if role.models is not None:
        if name != RELEASE:
            found.append(f"role {name} must not have models; they are for the release role")
        bad = [pattern for pattern in role.models if not _PATTERN.fullmatch(pattern)]
        if bad or not 1 <= len(role.models) <= MAX_PATTERNS:
            found.append(
                f"role {name}: models must be 1 to {MAX_PATTERNS} patterns of [A-Za-z0-9_*?-], "
                f"got {repr(bad[:1] or len(role.models))[:80]}"
            )
    return found
