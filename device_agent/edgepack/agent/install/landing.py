"""Where the blobs of one bundle arrive: kept over a restart, so that no byte comes twice.

Each blob grows as `HEX.part` from its beginning and loses the ending once its digest is right,
whichever source it comes from. Only the agent's own process writes here, never a child.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from edgepack.agent.disk import make_folder, storage_error
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.wire.desired import BlobRef

_PART = ".part"
_READ_BYTES = 1024 * 1024


class Store(Protocol):
    """What is on the device for good."""

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be."""


class Landing:
    """The place of one bundle.

    Every fetch makes one of its own. One that was given up writes nothing any more, even if its
    thread still runs.

    Args:
        folder: This bundle's folder; made if it is not there.
        store: The blobs that are on the device for good.

    Raises:
        StoreError: The disk does not take it.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._good: dict[str, Path] = {}
        self.lock = threading.Lock()
        self.given_up = False
        self.written_bytes = 0
        make_folder(folder)

    def give_up(self) -> None:
        """Nobody waits for it any more: when this returns, nothing is written."""
        with self.lock:
            self.given_up = True

    def has(self, ref: BlobRef) -> bool:
        """Whether a blob is here or in the store, whole: it is hashed, disks rot."""
        if ref.digest in self._good:
            return True
        for path in (self._folder / _hex(ref.digest), self._store.path(ref.digest)):
            try:
                if path.stat().st_size != ref.size_bytes:
                    continue
                with path.open("rb") as handle:
                    found = hashlib.file_digest(handle, "sha256").hexdigest()
            except OSError:
                continue
            if found == _hex(ref.digest):
                self._good[ref.digest] = path
                return True
        return False

    def here_bytes(self, ref: BlobRef) -> int:
        """How much of a blob that is not whole has come, in bytes."""
        try:
            return min(self._part(ref.digest).stat().st_size, ref.size_bytes)
        except OSError:
            return 0

    def read(self, ref: BlobRef) -> bytes:
        """A small blob that is here.

        Raises:
            StoreError: The disk does not give it.
        """
        path = self._good[ref.digest]
        try:
            return path.read_bytes()
        except OSError as exc:
            raise storage_error(path, exc) from exc

    def arrive(self, ref: BlobRef, *, unit_bytes: int = 1) -> "Arrival":
        """Go on with a blob where it ended.

        Args:
            ref: Which.
            unit_bytes: The source gives whole units of this size only.

        Raises:
            StoreError: The disk does not take it.
        """
        return Arrival(self, ref, self._part(ref.digest), unit_bytes)

    def landed(self, ref: BlobRef) -> Path:
        """Note that a blob is whole; where it belongs."""
        self._good[ref.digest] = path = self._folder / _hex(ref.digest)
        return path

    def lay_out(self, refs: Iterable[BlobRef], layout: Path) -> None:
        """Make an OCI layout of blobs that are all here, by links.

        Raises:
            StoreError: The disk does not take it.
        """
        folder = layout / "blobs" / "sha256"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            for ref in refs:
                os.link(self._good[ref.digest], folder / _hex(ref.digest))
        except OSError as exc:
            raise storage_error(folder, exc) from exc

    def _part(self, digest: str) -> Path:
        return self._folder / (_hex(digest) + _PART)


class Arrival:
    """One blob that comes. A context manager: what came stays, whatever happens.

    Attributes:
        ref: Which blob.
        offset: How many of its bytes are here.
    """

    def __init__(self, landing: Landing, ref: BlobRef, path: Path, unit_bytes: int) -> None:
        self.ref = ref
        self.offset = 0
        self._landing = landing
        self._path = path
        self._sha256 = hashlib.sha256()
        try:
            self._handle = self._open(unit_bytes)
        except OSError as exc:
            raise storage_error(path, exc) from exc
        self._resumed = self.offset > 0

    def __enter__(self) -> "Arrival":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def left_bytes(self) -> int:
        """How many bytes are still to come."""
        return self.ref.size_bytes - self.offset

    def write(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            FetchError: Nobody waits for them any more.
            RejectedError: They are more than the blob has.
            StoreError: The disk does not take them.
        """
        if len(data) > self.left_bytes:
            raise RejectedError(
                "bundle_invalid",
                f"blob {self.ref.digest} must have {self.ref.size_bytes} bytes, got more",
            )
        with self._landing.lock:
            if self._landing.given_up:
                raise FetchError("fetch was given up")
            try:
                view = memoryview(data)
                while view:  # a nearly full disk takes some of it
                    view = view[self._handle.write(view) :]
            except OSError as exc:
                raise storage_error(self._path, exc) from exc
            self._landing.written_bytes += len(data)
        self._sha256.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """All came: it is the blob, or it goes.

        Raises:
            FetchError: It is not, but part of it came earlier: then all of it is fetched anew.
            RejectedError: It is not.
            StoreError: The disk does not take it.
        """
        self.close()
        if self.left_bytes:
            raise FetchError(f"blob {self.ref.digest} broke off, {self.left_bytes} bytes missing")
        got = f"sha256:{self._sha256.hexdigest()}"
        if got != self.ref.digest:
            self._path.unlink(missing_ok=True)
            if self._resumed:
                raise FetchError(f"what was here of blob {self.ref.digest} is not good any more")
            raise RejectedError("bundle_invalid", f"blob must be {self.ref.digest}, got {got}")
        try:
            self._path.replace(self._landing.landed(self.ref))
        except OSError as exc:
            raise storage_error(self._path, exc) from exc

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def _open(self, unit_bytes: int) -> BinaryIO:
        handle = self._path.open("a+b", buffering=0)
        try:
            here = min(handle.seek(0, os.SEEK_END), self.ref.size_bytes)
            if here < self.ref.size_bytes:
                here -= here % unit_bytes
            handle.seek(0)
            while data := handle.read(min(_READ_BYTES, here - self.offset)):
                self._sha256.update(data)
                self.offset += len(data)
            handle.truncate(self.offset)
        except BaseException:
            handle.close()
            raise
        return handle


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
