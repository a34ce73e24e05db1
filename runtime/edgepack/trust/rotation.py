"""Making the next root.json: who gets which role, and whose signatures it still lacks.

For workstations. A root may need signers on several machines: it is made once, carried from one to
the next, and signed by each. Files and keys are the command line's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from edgepack.trust import dsse
from edgepack.trust.errors import RootError
from edgepack.trust.keys import PrivateKey, PublicKey
from edgepack.trust.payload_types import ROOT_PAYLOAD_TYPE
from edgepack.trust.root import Root
from edgepack.trust.root_document import (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RootChange:
    """What the next root has otherwise than the one before.

    Attributes:
        removed: Ids of keys that lose every role; a prefix of 8 characters or more will do.
        added: Role → keys that it gets.
        thresholds: Role → how many of its keys must sign.
        models: Patterns of model names for the release role; None leaves them as they are, an
            empty tuple takes the restriction away.
    """

    removed: tuple[str, ...] = ()
    added: Mapping[str, tuple[PublicKey, ...]] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """How many signatures a root still needs.

    Attributes:
        old: Of the root role of the version before; 0 for a first root.
        new: Of its own root role.
    """

    old: int
    new: int

    @property
    def complete(self) -> bool:
        """Whether devices would take it."""
        return self.old == self.new == 0


def next_root(old: Root, change: RootChange, signers: Sequence[PrivateKey]) -> bytes:
    """Make the root that follows `old`, signed by whom is at hand.

    Raises:
        RootError: The change does not fit the old root, or leaves a role without enough keys.
        ValueError: There is no signer.
    """
    gone = {_match(old, prefix) for prefix in change.removed}
    roles = {name: _changed(name, role, gone, change) for name, role in old.roles.items()}
    keys = {**old.keys, **{key.key_id: key for keys in change.added.values() for key in keys}}
    named = {key_id for role in roles.values() for key_id in role.keys}
    document = RootDocument(
        format="1.0",
        version=old.version + 1,
        keys={
            key_id: KeyEntry(type="ed25519", public=key.raw.hex())
            for key_id, key in keys.items()
            if key_id in named
        },
        roles=roles,
    )
    if {name: old.roles[name] for name in ROLES} == roles:
        raise RootError("the next root.json must change something, got no change")
    return dsse.sign(render_document(document), ROOT_PAYLOAD_TYPE, signers)


def sign_next(data: bytes, signers: Sequence[PrivateKey]) -> bytes:
    """Add signatures to a root that others have signed or will sign.

    Raises:
        RootError: It is no root.json.
    """
    read_document(data)
    return dsse.add_signatures(data, ROOT_PAYLOAD_TYPE, signers)


def lacking(data: bytes, old: Root | None) -> Lacking:
    """Count what a root still needs to be taken by devices that have `old`.

    Raises:
        RootError: It is no root.json.
    """
    document = read_document(data)
    envelope = dsse.parse(data, ROOT_PAYLOAD_TYPE)
    keys, role = used_keys(document), document.roles[ROOT]
    new = {key_id: keys[key_id] for key_id in role.keys}
    needed_old = 0
    if old is not None:
        signed_old = dsse.signers(envelope, old.role_keys(ROOT))
        needed_old = max(0, old.roles[ROOT].threshold - len(signed_old))
    needed_new = max(0, role.threshold - len(dsse.signers(envelope, new)))
    return Lacking(old=needed_old, new=needed_new)


def _changed(name: str, role: Role, gone: set[str], change: RootChange) -> Role:
    added = [key.key_id for key in change.added.get(name, ())]
    kept = [key_id for key_id in role.keys if key_id not in gone and key_id not in added]
    models = role.models
    if name == RELEASE and change.models is not None:
        models = change.models or None
    return replace(
        role,
        keys=(*kept, *added),
        threshold=change.thresholds.get(name, role.threshold),
        models=models,
    )


def _match(old: Root, prefix: str) -> str:
    shortest = 8
    found = [key_id for key_id in old.keys if key_id.startswith(prefix)]
    if len(prefix) < shortest or len(found) != 1:
        raise RootError(
            f"a key to remove must be named by {shortest} or more characters of its id that only "
            f"one key of the root has, got {prefix[:64]!r}"
        )
    return found[0]
