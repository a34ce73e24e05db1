"""The blobs of all installed bundles: one folder, each file named by its SHA-256, read-only.

An OCI image layout's `blobs/sha256`. Blobs arrive in a staging folder and are moved in only after
their digest was checked; two bundles that share weights share the file.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgepack.agent.disk import fsync_folder, make_folder, storage_error
from edgepack.agent.install.landing import Landing

_READ_ONLY = 0o444
_FETCHED = "fetched"
LOCAL = "local"  # staging of a file that somebody brought; all others are named by their digest


class BlobStore:
    """The folder `blobs/sha256` and, beside it, `staging`.

    Args:
        state_dir: The agent's state folder.
    """

    def __init__(self, state_dir: Path) -> None:
        self.layout = state_dir / "store"
        self.folder = self.layout / "blobs" / "sha256"
        self.staging = state_dir / "staging"
        # A child that outlived a killed agent must not write into what this one verified: what
        # children see has another name in every run. What is being fetched only this process
        # writes, and it stays for the next run to go on with.
        self._run = self.staging / os.urandom(4).hex()
        self._fetched = self.staging / _FETCHED
        make_folder(self.folder)
        make_folder(self.staging, durable=False)

    def path(self, digest: str) -> Path:
        """Where a blob of that digest ("sha256:HEX") is, or would be."""
        return self.folder / _hex(digest)

    def clear_staging(self) -> None:
        """Throw away what earlier runs left, but for what they had fetched.

        Raises:
            StoreError: The disk does not take it.
        """
        try:
            for folder in self.staging.iterdir():
                if folder.name != _FETCHED:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError as exc:
            raise storage_error(self.staging, exc) from exc

    def staging_for(self, digest: str) -> Path:
        """A folder for the install of one bundle: an OCI layout, which children may read."""
        folder = self._run / _hex(digest)
        make_folder(folder / "blobs" / "sha256", durable=False)
        return folder

    def landing_for(self, digest: str) -> Landing:
        """Where the blobs of one bundle arrive; goes on with what is there.

        Raises:
            StoreError: The disk does not take it.
        """
        return Landing(self._fetched / _hex(digest), self)

    def discard_staging(self, digest: str) -> None:
        """Throw away what was fetched of a bundle that is not wanted."""
        for folder in (self._run, self._fetched):
            shutil.rmtree(folder / _hex(digest), ignore_errors=True)

    def discard_staging_except(self, digests: Iterable[str]) -> None:
        """Throw away every fetch but those, and that of a local file."""
        kept = {LOCAL, *map(_hex, digests)}
        for parent in (self._run, self._fetched):
            with contextlib.suppress(FileNotFoundError):
                for folder in parent.iterdir():
                    if folder.name not in kept:
                        shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, staged_layout: Path, digests: Iterable[str]) -> None:
        """Move verified blobs into the store, durably.

        Args:
            staged_layout: The folder that `staging_for` gave.
            digests: The blobs of the bundle; those that are in the store already are left there.

        Raises:
            StoreError: The disk does not take it.
        """
        source = staged_layout / "blobs" / "sha256"
        new: list[Path] = []
        try:
            for digest in digests:
                target = self.folder / _hex(digest)
                staged = source / _hex(digest)
                if not staged.exists() and target.exists():
                    continue
                with staged.open("rb") as handle:
                    os.fsync(handle.fileno())
                staged.chmod(_READ_ONLY)
                if not target.exists():
                    new.append(target)
                staged.replace(target)
            fsync_folder(self.folder)
        except OSError as exc:
            if exc.errno == errno.EIO:
                # Linux forgets what it could not write: the next fsync would say that all is well
                for path in new:
                    path.unlink(missing_ok=True)
                self.discard_staging(staged_layout.name)
            raise storage_error(self.folder, exc) from exc
        self.discard_staging(staged_layout.name)

    def collect(self, kept: Iterable[str]) -> int:
        """Delete every blob that is not in `kept`; the number of bytes that this freed."""
        names = {_hex(digest) for digest in kept}
        freed = 0
        for path in self.folder.iterdir():
            if path.name in names:
                continue
            with contextlib.suppress(OSError):  # a blob that stays costs space, nothing else
                size = path.stat().st_size
                path.unlink()
                freed += size
        return freed


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
