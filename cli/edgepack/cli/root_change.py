"""From the options of `edgepack root rotate` to the next root."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.cli.errors import UsageError
from edgepack.trust import ROOT, PrivateKey, PublicKey, Root
from edgepack.trust.generate import key_path
from edgepack.trust.root_document import ROLES
from edgepack.trust.rotation import RootChange, next_root

_HEX_KEY_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A change, and the private keys that were made for it.

    Attributes:
        change: What is otherwise.
        new_keys: Made now, by role; on no disk yet.
        root_keys: Ids of the keys that the next root role gets.
    """

    change: RootChange
    new_keys: dict[str, PrivateKey]
    root_keys: tuple[str, ...]

    def sign(self, old: Root, signers: Sequence[PrivateKey]) -> bytes:
        """The next root.json.

        Raises:
            RootError: The change does not fit the old root.
        """
        return next_root(old, self.change, signers)


def prepare(args: argparse.Namespace, old: Root, keys: Path) -> Prepared:
    """Read the options.

    Args:
        args: `new`, `add`, `remove`, `threshold`, `models`, `all_models`.
        old: The root to follow.
        keys: Folder of the private keys; a new key takes the place of the one that is there.

    Raises:
        UsageError: An option is not what it must be.
        KeyFileError: A key file cannot be read.
    """
    new_keys = {role: PrivateKey.generate() for role in dict.fromkeys(args.new)}
    added: dict[str, tuple[PublicKey, ...]] = {
        role: (key.public,) for role, key in new_keys.items()
    }
    for text in args.add:
        role, value = _pair(text, "--add")
        added[role] = (*added.get(role, ()), _public(value))
    replaced = [_replaced(role, old, keys) for role in new_keys]
    removed = [*args.remove, *(key_id for key_id in replaced if key_id is not None)]
    models = None
    if args.all_models:
        models = ()
    elif args.models:
        models = tuple(part.strip() for part in args.models.split(","))
    change = RootChange(
        removed=tuple(dict.fromkeys(removed)),
        added=added,
        thresholds=dict(_threshold(text) for text in args.threshold),
        models=models,
    )
    root_keys = tuple(key.key_id for key in added.get(ROOT, ())) + old.roles[ROOT].keys
    return Prepared(change=change, new_keys=new_keys, root_keys=root_keys)


def _replaced(role: str, old: Root, keys: Path) -> str | None:
    """The key whose place a new one takes: this folder's, or the only one that there is."""
    path = key_path(keys, role)
    holders = old.roles[role].keys
    if path.exists():
        key_id = PrivateKey.load(path).public.key_id
        return key_id if key_id in holders else None
    return holders[0] if len(holders) == 1 else None


def _pair(text: str, option: str) -> tuple[str, str]:
    role, equals, value = text.partition("=")
    if role not in ROLES or not equals or not value:
        raise UsageError(f"{option} must be ROLE=… with ROLE one of {', '.join(ROLES)}, got {text}")
    return role, value


def _threshold(text: str) -> tuple[str, int]:
    role, value = _pair(text, "--threshold")
    if not value.isdecimal() or not value.isascii():
        raise UsageError(f"--threshold must be ROLE=N, got {text}")
    return role, int(value)


def _public(value: str) -> PublicKey:
    if len(value) == _HEX_KEY_CHARACTERS:
        try:
            return PublicKey(bytes.fromhex(value))
        except ValueError as exc:
            raise UsageError(f"--add must name a key in hex, got {value[:80]!r}") from exc
    return PrivateKey.load(Path(value)).public
