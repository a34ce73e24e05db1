"""Make the three keys and the root of trust that devices are given."""

import contextlib
import os
from pathlib import Path

from edgepack.trust.errors import KeyFileError
from edgepack.trust.key_files import write_new
from edgepack.trust.keys import PrivateKey
from edgepack.trust.root import DEPLOY, RELEASE, ROLES, ROOT, Role, Root, sign_root
from edgepack.trust.values import dataclass

ROOT_FILE = "root.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedKeys:
    """Where `keygen` put what it made.

    Attributes:
        root_key: Private; keep it offline.
        release_key: Private; signs bundles.
        deploy_key: Private; signs desired states.
        root_json: Public; goes to every device.
        root: What is in `root_json`.
    """

    root_key: Path
    release_key: Path
    deploy_key: Path
    root_json: Path
    root: Root


def key_path(folder: str | os.PathLike[str], role: str) -> Path:
    """Tell where `keygen` puts the private key of a role."""
    return Path(folder) / f"{role}.key"


def keygen(folder: str | os.PathLike[str]) -> GeneratedKeys:
    """Make `root.key`, `release.key`, `deploy.key` (mode 0600) and `root.json` in a folder.

    Raises:
        KeyFileError: One of the files is there already, or cannot be written. Then nothing of
            what this call made is left behind.
    """
    folder = Path(folder)
    paths = {role: key_path(folder, role) for role in ROLES}
    root_json = folder / ROOT_FILE
    for path in (*paths.values(), root_json):
        if path.exists() or path.is_symlink():
            raise KeyFileError(f"{path} is there already; keys are never overwritten")
    keys = {role: PrivateKey.generate() for role in ROLES}
    data = sign_root(
        version=1,
        keys=[key.public for key in keys.values()],
        roles={role: Role(keys=(key.public.key_id,)) for role, key in keys.items()},
        signers=[keys[ROOT]],
    )
    _write(folder, {paths[role]: key for role, key in keys.items()}, root_json, data)
    return GeneratedKeys(
        root_key=paths[ROOT],
        release_key=paths[RELEASE],
        deploy_key=paths[DEPLOY],
        root_json=root_json,
        root=Root.parse(data),
    )


def _write(folder: Path, keys: dict[Path, PrivateKey], root_json: Path, data: bytes) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise KeyFileError(f"cannot make the folder {folder}: {exc.strerror}") from exc
    with contextlib.ExitStack() as undo:
        for path, key in keys.items():
            key.save(path)
            undo.callback(path.unlink, missing_ok=True)
        write_new(root_json, data, mode=0o644)
        undo.pop_all()
