"""The root of trust: which keys may do what, and how the next root is recognised.

The rules are those of The Update Framework (TUF 1.0.33, sections 5.3 and 6.1), with three roles:

- `root` signs the next root;
- `release` signs bundles, of models whose names match its patterns;
- `deploy` signs desired states.

`root.json` is a DSSE envelope that its own root role has signed. The first one reaches a device by
hand; every later one must be signed under the old AND the new root role, and its version is the
old one plus 1. Unlike TUF's, a root does not expire: a device that was offline for a year, or that
has no clock, goes on serving.
"""

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.trust import dsse, strict_json
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError, RootError, SignatureError
from edgepack.trust.key_files import read_small
from edgepack.trust.keys import PUBLIC_KEY_BYTES, PrivateKey, PublicKey
from edgepack.trust.payload_types import ROOT_PAYLOAD_TYPE

ROOT = "root"
RELEASE = "release"
DEPLOY = "deploy"
ROLES = (ROOT, RELEASE, DEPLOY)

FORMAT = "1.0"
MAX_ROOT_BYTES = dsse.MAX_ENVELOPE_BYTES
MAX_KEYS = 64
MAX_PATTERNS = 64
_MAX_VERSION = 2**31 - 1
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
class _Key:
    type: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    format: str
    version: int
    keys: dict[str, _Key]
    roles: dict[str, Role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root of trust whose own signatures have been checked.

    Attributes:
        version: 1 for the first, one more for each that follows.
        keys: Every key that a role names, by key id.
        roles: `root`, `release` and `deploy`.
        data: The bytes of root.json, for keeping.
    """

    version: int
    keys: dict[str, PublicKey]
    roles: dict[str, Role]
    data: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Root":
        """Read root.json and check that its own root role has signed it.

        Raises:
            RootError: It is malformed, or not signed by itself.
        """
        try:
            payload = dsse.unverified_payload(data, ROOT_PAYLOAD_TYPE)
            document = decode(
                _Document,
                strict_json.parse(payload, what="root.json", max_bytes=MAX_ROOT_BYTES),
                what="root.json",
                ignore_unknown=True,
            )
        except DocumentError as exc:
            raise RootError(str(exc)) from exc
        problems = _problems(document)
        if problems:
            raise RootError(f"root.json: {'; '.join(problems[:5])}")
        keys = {key_id: PublicKey(bytes.fromhex(key.public)) for key_id, key in _used(document)}
        root = cls(version=document.version, keys=keys, roles=document.roles, data=data)
        try:
            root.verify(ROOT, data, ROOT_PAYLOAD_TYPE)
        except SignatureError as exc:
            raise RootError(f"root.json is not signed by its own root role: {exc}") from exc
        return root

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Root":
        """Read a root.json file.

        Raises:
            KeyFileError: The file cannot be read or is too large.
            RootError: What is in it is no root.
        """
        return cls.parse(read_small(Path(path), max_bytes=MAX_ROOT_BYTES))

    def update(self, new_data: bytes) -> "Root":
        """Take the next root, if the old root role and the new one have both signed it.

        Raises:
            RootError: It is no root, not the next version, or not signed by this root's role.
        """
        new = Root.parse(new_data)
        if new.version != self.version + 1:
            raise RootError(
                f"the next root.json must have version {self.version + 1}, got {new.version}"
            )
        try:
            self.verify(ROOT, new_data, ROOT_PAYLOAD_TYPE)
        except SignatureError as exc:
            raise RootError(
                f"root.json version {new.version} is not signed by the root role of version "
                f"{self.version}: {exc}"
            ) from exc
        return new

    def verify(
        self, role: str, envelope: bytes, payload_type: str, *, model: str | None = None
    ) -> bytes:
        """Give the payload of an envelope that a role has signed.

        Args:
            role: ROOT, RELEASE or DEPLOY.
            envelope: The DSSE envelope.
            payload_type: The type that it must have.
            model: For the release role, the model's name, which must match its patterns.

        Raises:
            SignatureError: The role has not signed it, or may not sign for that model.
        """
        if model is not None:
            self.check_model(role, model)
        try:
            return dsse.verify(
                envelope, payload_type, self.role_keys(role), self.roles[role].threshold
            )
        except SignatureError as exc:
            raise SignatureError(f"role {role}: {exc}") from exc

    def role_keys(self, role: str) -> dict[str, PublicKey]:
        """Give the keys of a role, by key id."""
        return {key_id: self.keys[key_id] for key_id in self.roles[role].keys}

    def check_model(self, role: str, model: str) -> None:
        """Refuse a model that the role may not sign for.

        Raises:
            SignatureError: No pattern of the role matches the name.
        """
        patterns = self.roles[role].models
        if patterns is None:
            return
        if not any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns):
            raise SignatureError(
                f"role {role} may sign models {', '.join(patterns)}, got {model[:64]!r}"
            )


def sign_root(
    *,
    version: int,
    keys: Iterable[PublicKey],
    roles: Mapping[str, Role],
    signers: Sequence[PrivateKey],
) -> bytes:
    """Make a root.json.

    Args:
        version: 1 for the first, the old version plus 1 when replacing one.
        keys: Every key that a role names.
        roles: One `Role` for each of `root`, `release` and `deploy`.
        signers: Enough keys for the new root role and, when replacing one, for the old root role.
            More can be added later with `dsse.add_signatures`.

    Raises:
        RootError: The roles do not hold together (an unknown key, a threshold out of reach).
    """
    document = _Document(
        format=FORMAT,
        version=version,
        keys={key.key_id: _Key(type="ed25519", public=key.raw.hex()) for key in keys},
        roles=dict(roles),
    )
    problems = _problems(document)
    if problems:
        raise RootError(f"root.json: {'; '.join(problems[:5])}")
    payload = strict_json.render(encode(document))
    return dsse.sign(payload, ROOT_PAYLOAD_TYPE, signers)


def _used(document: _Document) -> list[tuple[str, _Key]]:
    named = {key_id for name in ROLES for key_id in document.roles[name].keys}
    return [(key_id, key) for key_id, key in sorted(document.keys.items()) if key_id in named]


def _problems(document: _Document) -> list[str]:
    if not _FORMAT.fullmatch(document.format):
        return [f"format must be 1.x, got {document.format[:20]!r}"]
    found = []
    if not 1 <= document.version <= _MAX_VERSION:
        found.append(f"version must be 1 to {_MAX_VERSION}, got {document.version}")
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


def _key_problems(key_id: str, key: _Key) -> list[str]:
    shown = key_id[:12]
    if key.type != "ed25519":
        return [f"key {shown!r} must have type ed25519, got {key.type[:20]!r}"]
    if not _HEX_KEY.fullmatch(key.public):
        return [f"key {shown!r} must be {PUBLIC_KEY_BYTES} bytes in lower-case hex"]
    if PublicKey(bytes.fromhex(key.public)).key_id != key_id:
        return [f"key {shown!r} must have the SHA-256 of its bytes as its id"]
    return []


def _role_problems(name: str, role: Role, keys: Mapping[str, _Key]) -> list[str]:
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
