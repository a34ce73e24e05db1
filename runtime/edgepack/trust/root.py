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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from edgepack.trust import dsse
from edgepack.trust.errors import RootError, SignatureError
from edgepack.trust.key_files import read_small
from edgepack.trust.keys import PrivateKey, PublicKey
from edgepack.trust.payload_types import ROOT_PAYLOAD_TYPE
from edgepack.trust.root_document import (
    DEPLOY,
    FORMAT,
    MAX_ROOT_BYTES,
    RELEASE,
    ROLES,
    ROOT,
    KeyEntry,
    Role,
    RootDocument,
    read_document,
    render_document,
    used_keys,
)
from edgepack.trust.values import dataclass

__all__ = ["DEPLOY", "RELEASE", "ROLES", "ROOT", "Role", "Root", "sign_root"]


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
        document = read_document(data)
        root = cls(
            version=document.version, keys=used_keys(document), roles=document.roles, data=data
        )
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

    def signers(self, role: str, envelope: bytes, payload_type: str) -> tuple[str, ...]:
        """Tell which keys of a role have signed an envelope, by key id, sorted.

        Raises:
            DocumentError: It is not an envelope of that type.
        """
        return tuple(sorted(dsse.signers(dsse.parse(envelope, payload_type), self.role_keys(role))))

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
    document = RootDocument(
        format=FORMAT,
        version=version,
        keys={key.key_id: KeyEntry(type="ed25519", public=key.raw.hex()) for key in keys},
        roles=dict(roles),
    )
    return dsse.sign(render_document(document), ROOT_PAYLOAD_TYPE, signers)
