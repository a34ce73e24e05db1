"""From `fetching` to `testing`: a bundle comes onto the device and proves what it is."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.blobs import LOCAL, BlobStore
from edgepack.agent.install.fetch import Fetched, Fetcher
from edgepack.agent.install.findings import Verified
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.worker import Worker
from edgepack.wire.desired import DesiredModel


class Obtainer:
    """Gets bundles into the store.

    Args:
        journal: Knows which bundles are in the store.
        blobs: The store.
        fetcher: Gets what is not.
        worker: Verifies in a child process.
        slots: Advanced step by step.
        at_once: How many bundles are fetched at the same time.
        testing: Held while a local file is taken; see `Trials`.
    """

    def __init__(
        self,
        journal: Journal,
        blobs: BlobStore,
        fetcher: Fetcher,
        worker: Worker,
        slots: Slots,
        *,
        at_once: int,
        testing: asyncio.Lock,
    ) -> None:
        self._journal = journal
        self._blobs = blobs
        self._fetcher = fetcher
        self._worker = worker
        self._slots = slots
        self._fetching: dict[str, asyncio.Task[Fetched]] = {}
        self._testing = testing
        self._some = asyncio.Semaphore(at_once)
        self._spoilt: set[str] = set()  # bundles whose copy on disk is no longer good

    async def fetch(self, key: str, model: DesiredModel) -> Fetched | None:
        """Fetch what is not on disk for a slot; None when the whole bundle is.

        Raises:
            FetchError: No source gives the bundle now, or it is no longer wanted.
            RejectedError: It is too large, or what a source gives is not what was asked for.
            StoreError: The disk does not take it.
        """
        if model.digest in self._journal.bundles() and model.digest not in self._spoilt:
            return None
        task = asyncio.create_task(self._fetch_in_turn(model), name=model.digest)
        self._fetching[key] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not task.cancelled() or (current is not None and current.cancelling()):
                task.cancel()  # the agent stops
                raise
            raise FetchError("the desired state changed meanwhile") from None
        finally:
            del self._fetching[key]

    async def verify(self, key: str, model: DesiredModel, fetched: Fetched | None) -> Stored:
        """Bring a slot from `fetching` to `testing`.

        Args:
            key: The slot.
            model: What is installed.
            fetched: What `fetch` gave.

        Raises:
            FetchError: What is on disk is no longer good; `fetch` gets it anew.
            RejectedError: It is damaged, not trusted, too large, or another one.
            StoreError: The disk does not take it.
        """
        if fetched is None:
            stored = self._journal.bundles().get(model.digest)
            if stored is None:
                raise FetchError(f"{model.digest} was cleared from the disk meanwhile")
            verified = await self._verify_stored(model, stored)
            self._advance(key)  # verifying what is on disk
            self._advance(key)  # staging: it is there already
        else:
            self._advance(key)  # verifying
            verified = await self._verify(fetched, model)
            self._advance(key)  # staging
            self._keep(fetched.staging, verified)
        self._advance(key)  # testing
        return verified.stored

    async def take_file(self, path: Path) -> Stored:
        """Verify a local file and keep its bundle; no slot is touched.

        Raises:
            RejectedError: It is not a bundle that the root of trust accepts, or cannot be installed
                here.
            StoreError: The disk does not take it.
        """
        await self._fetcher.check_file(path)
        async with self._testing:
            staging = self._blobs.staging_for(LOCAL)
            try:
                verified = await self._worker.verify_file(
                    path, staging, digest=None, name=None, floors=self._slots.floors()
                )
                self._keep(staging, verified)
            finally:
                self._blobs.discard_staging(LOCAL)
            return verified.stored

    def give_up_unless(self, wanted: Mapping[str, str]) -> None:
        """Stop every fetch but those of `wanted`, the digest by slot."""
        for key, task in self._fetching.items():
            if task.get_name() != wanted.get(key):
                task.cancel()

    async def _fetch_in_turn(self, model: DesiredModel) -> Fetched:
        async with self._some:
            return await self._fetcher.fetch(model)

    async def _verify_stored(self, model: DesiredModel, stored: Stored) -> Verified:
        try:
            return await self._worker.verify_layout(
                self._blobs.layout,
                digest=stored.digest,
                signatures=stored.signatures,
                name=model.name,
                floors=self._slots.floors(),
            )
        except RejectedError as exc:
            # damaged on disk, or signed by a key that was replaced since: a source may do better
            if exc.reason not in ("bundle_invalid", "not_trusted") or not model.sources:
                raise
            self._spoilt.add(model.digest)
            raise FetchError(f"the copy on disk is not good, fetching it anew: {exc}") from exc

    async def _verify(self, fetched: Fetched, model: DesiredModel) -> Verified:
        return await self._worker.verify_layout(
            fetched.staging,
            digest=model.digest,
            signatures=fetched.signatures,
            name=model.name,
            floors=self._slots.floors(),
        )

    def _keep(self, staging: Path, verified: Verified) -> None:
        self._blobs.adopt(staging, verified.blobs)
        self._journal.save_bundle(verified.stored)
        self._spoilt.discard(verified.stored.digest)

    def _advance(self, key: str) -> None:
        self._slots.save(self._slots[key].advance())
