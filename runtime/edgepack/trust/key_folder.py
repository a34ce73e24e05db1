"""A workstation's folder of keys over the years: which root it follows, and which key is today's.

`ROLE.key` and `root.json` are what commands use. What is being prepared for version N lies beside
them as `ROLE.N.key` and `root.N.json`, and what was replaced stays under the version that it was
made for: nothing is ever deleted.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from edgepack.trust.errors import KeyFileError, RootError
from edgepack.trust.generate import key_path
from edgepack.trust.key_files import read_small, replace_file, write_new
from edgepack.trust.keys import PrivateKey
from edgepack.trust.root import Root
from edgepack.trust.root_chain import chain_file
from edgepack.trust.root_document import MAX_ROOT_BYTES, ROLES
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What adopting a root did.

    Attributes:
        root: What the folder follows now.
        keys: Private keys that came into use, by role.
    """

    root: Root
    keys: dict[str, Path]


def next_key_path(folder: Path, role: str, version: int) -> Path:
    """Where the key that version `version` brings for a role lies until then."""
    return folder / f"{role}.{version}.key"


def save_prepared(
    root_file: Path, keys_folder: Path, version: int, data: bytes, keys: Mapping[str, PrivateKey]
) -> tuple[Path, dict[str, Path]]:
    """Write the next root.json and the new private keys beside today's.

    Returns:
        The root's file, and the keys' files by role.

    Raises:
        KeyFileError: One of the files is there already, or cannot be written.
    """
    paths = {role: next_key_path(keys_folder, role, version) for role in keys}
    target = chain_file(root_file.parent, version)
    for path in (target, *paths.values()):
        if path.exists() or path.is_symlink():
            raise KeyFileError(f"{path} is there already: version {version} is being prepared")
    for role, key in keys.items():
        key.save(paths[role])
    write_new(target, data, mode=0o644)
    return target, paths


def adopt(root_file: Path, keys_folder: Path, data: bytes) -> Adopted:
    """Follow the next root.json: it becomes `root.json`, and prepared keys become today's.

    Raises:
        RootError: It does not follow from what the folder has.
        KeyFileError: A file cannot be read or written.
    """
    old = Root.load(root_file)
    root = old if data == old.data else old.update(data)
    for kept in (old, root):
        path = chain_file(root_file.parent, kept.version)
        if not path.exists():
            write_new(path, kept.data, mode=0o644)
        elif path != root_file and read_small(path, max_bytes=MAX_ROOT_BYTES) != kept.data:
            replace_file(path, kept.data, mode=0o644)
    if root is not old:
        replace_file(root_file, root.data, mode=0o644)
    return Adopted(root=root, keys=_adopt_keys(keys_folder, root))


def local_chain(root_file: Path) -> tuple[Root, ...]:
    """Every version that lies beside root.json and leads to it, oldest first.

    Raises:
        RootError, KeyFileError: root.json itself is no good.
    """
    found = [Root.load(root_file)]
    while found[0].version > 1:
        try:
            before = Root.load(chain_file(root_file.parent, found[0].version - 1))
            before.update(found[0].data)
        except (KeyFileError, RootError):
            break
        found.insert(0, before)
    return tuple(found)


def _adopt_keys(folder: Path, root: Root) -> dict[str, Path]:
    adopted = {}
    for role in ROLES:
        prepared, today = next_key_path(folder, role, root.version), key_path(folder, role)
        if not prepared.exists():
            continue
        if PrivateKey.load(prepared).public.key_id not in root.roles[role].keys:
            continue
        try:
            if today.exists():
                put_away = next_key_path(folder, role, root.version - 1)
                if put_away.exists():
                    raise KeyFileError(f"{put_away} is there already; keys are never overwritten")
                today.rename(put_away)
            os.link(prepared, today)  # never overwrites
            prepared.unlink()
        except OSError as exc:
            raise KeyFileError(f"cannot move {prepared} to {today}: {exc.strerror}") from exc
        adopted[role] = today
    return adopted
