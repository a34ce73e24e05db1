"""Getting a bundle onto this device, by the sources that the desired state names, in order.

Over MQTT a bundle comes blob by blob, and what is in the store already is not fetched; over HTTP
and from a file it comes whole. What arrives is NOT trusted yet: `verifying` comes next.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from edgepack.agent.disk import storage_error
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.download import download, in_own_thread
from edgepack.bundle import BundleError, blobs_of_manifest
from edgepack.trust.errors import EdgepackError
from edgepack.wire.desired import BlobRef, DesiredModel
from edgepack.wire.topics import CHUNK_BYTES, blob_topic, chunk_count

logger = logging.getLogger(__name__)

_WINDOW = 16
_BLOBS_AT_ONCE = 4
_CHUNK_TIMEOUT_S = 30.0
_HEADROOM_BYTES = 16 * 1024 * 1024
_MAX_MANIFEST_BYTES = 1024 * 1024


class Retained(Protocol):
    """What gives retained messages: the link."""

    async def retained(self, topics: list[str], *, timeout_s: float) -> list[bytes]:
        """Payloads of some topics, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a source gave.

    Attributes:
        staging: The staging layout of this bundle.
        file: A whole `.edgepack` file, or None when `staging` holds the single blobs.
    """

    staging: Path
    file: Path | None


class Fetcher:
    """Fetches bundles into the staging folder.

    Args:
        blobs: The store.
        link: Gives retained messages.
        prefix: MQTT topic prefix.
        max_bundle_bytes: Nothing larger is fetched.
    """

    def __init__(
        self, blobs: BlobStore, link: Retained, *, prefix: str, max_bundle_bytes: int
    ) -> None:
        self._blobs = blobs
        self._link = link
        self._prefix = prefix
        self._max_bundle_bytes = max_bundle_bytes
        self._downloads = 0

    async def fetch(self, model: DesiredModel) -> Fetched:
        """Fetch one bundle, from the first source that gives it.

        Raises:
            FetchError: No source gives it now; try again later.
            RejectedError: It is too large, or what a source gives is not what was asked for.
            StoreError: The disk does not take it.
        """
        self._check_size(model.archive_size_bytes)
        if not model.sources:
            raise RejectedError("not_on_disk", f"{model.digest} is not on this device")
        staging = self._blobs.staging_for(model.digest)
        problems = []
        for source in model.sources:
            try:
                return await self._fetch_from(source, model, staging)
            except FetchError as exc:
                problems.append(str(exc))
        raise FetchError("; ".join(problems))

    async def _fetch_from(self, source: str, model: DesiredModel, staging: Path) -> Fetched:
        if source == "mqtt:":
            await self._fetch_blobs(model, staging)
            return Fetched(staging=staging, file=None)
        if source.startswith("file:"):
            return Fetched(staging=staging, file=_local_file(source))
        # a name of its own: an earlier try that was given up may still be writing
        self._downloads += 1
        file = staging / f"download-{self._downloads}.edgepack"
        limit = model.archive_size_bytes or self._max_bundle_bytes
        given_up = threading.Event()
        try:
            await in_own_thread(lambda: download(source, file, limit, given_up))
        finally:
            given_up.set()
        return Fetched(staging=staging, file=file)

    async def _fetch_blobs(self, model: DesiredModel, staging: Path) -> None:
        first = BlobRef(digest=model.digest, size_bytes=model.manifest_size_bytes)
        wanted: dict[str, BlobRef] = {}
        for manifest in (first, *model.signatures):
            if manifest.size_bytes > _MAX_MANIFEST_BYTES:
                raise RejectedError(
                    "too_large",
                    f"manifest must be at most {_MAX_MANIFEST_BYTES} bytes, "
                    f"got {manifest.size_bytes}",
                )
            path = await self._blob(manifest, staging)
            try:
                blobs = blobs_of_manifest(_read_file(path))
            except BundleError as exc:
                raise RejectedError("bundle_invalid", str(exc)) from exc
            for blob in blobs:
                wanted[blob.digest] = BlobRef(digest=blob.digest, size_bytes=blob.size_bytes)
            self._check_size(sum(ref.size_bytes for ref in wanted.values()))
        some = asyncio.Semaphore(_BLOBS_AT_ONCE)

        async def fetch_one(ref: BlobRef) -> None:
            async with some:
                await self._blob(ref, staging)

        try:
            async with asyncio.TaskGroup() as tasks:
                for ref in wanted.values():
                    tasks.create_task(fetch_one(ref))
        except* EdgepackError as group:
            raise min(group.exceptions, key=_finality) from None

    async def _blob(self, ref: BlobRef, staging: Path) -> Path:
        name = ref.digest.removeprefix("sha256:")
        path = staging / "blobs" / "sha256" / name
        try:
            stored = self._blobs.folder / name
            if (
                self._blobs.has(ref.digest, ref.size_bytes)
                and await asyncio.to_thread(_sha256, stored) == name  # disks rot
            ):
                # a link, so that the staging layout is whole for verification
                path.unlink(missing_ok=True)
                os.link(stored, path)
                return path
            if path.exists() and await asyncio.to_thread(_sha256, path) == name:
                return path
            await self._chunks(ref, path)
        except OSError as exc:
            raise storage_error(path, exc) from exc
        return path

    async def _chunks(self, ref: BlobRef, path: Path) -> None:
        count = chunk_count(ref.size_bytes)
        digest = hashlib.sha256()
        path.unlink(missing_ok=True)  # it may be a link to a blob of the store
        with path.open("xb") as handle:
            for start in range(0, count, _WINDOW):
                window = range(start, min(count, start + _WINDOW))
                topics = [blob_topic(self._prefix, ref.digest, index) for index in window]
                chunks = await self._link.retained(topics, timeout_s=_CHUNK_TIMEOUT_S)
                for index, chunk in zip(window, chunks, strict=True):
                    expected = min(CHUNK_BYTES, ref.size_bytes - index * CHUNK_BYTES)
                    if expected and not chunk:  # cleared while it was fetched
                        raise FetchError(f"broker no longer has chunk {index} of {ref.digest}")
                    if len(chunk) != expected:
                        raise RejectedError(
                            "bundle_invalid",
                            f"chunk {index} of {ref.digest} must be {expected} bytes, "
                            f"got {len(chunk)}",
                        )
                    digest.update(chunk)
                    handle.write(chunk)
        if f"sha256:{digest.hexdigest()}" != ref.digest:
            path.unlink()
            raise RejectedError(
                "bundle_invalid", f"blob must be {ref.digest}, got sha256:{digest.hexdigest()}"
            )

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bundle_bytes:
            raise RejectedError(
                "too_large",
                f"bundle must be at most {self._max_bundle_bytes} bytes, got {size_bytes}",
            )
        free = shutil.disk_usage(self._blobs.staging).free
        if free < 2 * size_bytes + _HEADROOM_BYTES:
            raise RejectedError(
                "disk_full",
                f"{2 * size_bytes + _HEADROOM_BYTES} bytes must be free, got {free}",
            )


def _finality(exc: BaseException) -> int:
    """Of several failures, one that no other try mends is the one to tell."""
    return 0 if isinstance(exc, RejectedError) else 1


def _local_file(source: str) -> Path:
    try:
        path = Path(unquote(urlsplit(source).path))
        if not path.is_file():
            raise FetchError(f"file {path} does not exist")
    except (OSError, ValueError) as exc:  # no permission, a name that is too long
        raise FetchError(f"{source[:200]} cannot be read: {exc}") from exc
    return path


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise storage_error(path, exc) from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
