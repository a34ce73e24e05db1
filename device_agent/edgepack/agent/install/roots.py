"""The root of trust over the years: from the anchor of agent.toml to what was rotated since.

Operators publish every next root.json under `<prefix>/blob/root/<version>`. This asks for the one
after its own, has it checked and kept in a child process, and goes on to the next, one version at
a time (TUF 1.0.33, section 5.3). A forged one costs a child process and changes nothing.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.chain import ROOT_VERSION
from edgepack.agent.install.desires import ROOT_DIGEST, Desires
from edgepack.agent.install.findings import TrustedRoot
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.worker import Worker
from edgepack.trust.errors import KeyFileError, RootError
from edgepack.trust.key_files import read_small
from edgepack.trust.root_chain import MAX_STEPS, newest_kept
from edgepack.trust.root_document import MAX_ROOT_BYTES, read_document
from edgepack.wire.topics import root_topic

logger = logging.getLogger(__name__)

ROOTS_FOLDER = "roots"
_SEEN = "root_seen"
_DEPLOY_KEYS = "root_deploy_keys"
_DELIVERIES_KEPT = 4
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 300.0


class Follows(Protocol):
    """What listens to a topic from now on: the link."""

    async def follow(self, topic: str) -> None:
        """Subscribe, now and on every later connection."""

    async def unfollow(self, topic: str) -> None:
        """Stop listening."""


class Roots:
    """Keeps the root of trust up to date.

    Args:
        config: Names the anchor, the state folder and the prefix.
        journal: Remembers what the last root demanded.
        worker: Checks signatures in a child process.
        link: Listens to the next version's topic; None while no broker is spoken to.
        desires: Told of every change, and holds the lock of everything that trust decides.
        changed: Called with the version that holds now.
        refused: Called with one line when a root is not taken, with "" when one is.
    """

    def __init__(
        self,
        config: AgentConfig,
        journal: Journal,
        worker: Worker,
        link: Follows,
        desires: Desires,
        *,
        changed: Callable[[int], None],
        refused: Callable[[str], None],
    ) -> None:
        self._anchor = Path(config.root)
        self._folder = config.state_dir / ROOTS_FOLDER
        self._prefix = config.prefix
        self._journal = journal
        self._worker = worker
        self._link = link
        self._desires = desires
        self._changed = changed
        self._refused = refused
        self._deliveries: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_DELIVERIES_KEPT)
        self._bad: set[str] = set()  # digests of what was refused under this version
        self.version = int(journal.meta(ROOT_VERSION) or 0)

    def deliver(self, topic: str, data: bytes) -> None:
        """Take what came on a root's topic; returns at once."""
        if data and not self._deliveries.full():
            self._deliveries.put_nowait((topic, data))

    async def run(self) -> None:
        """Follow until cancelled."""
        delay_s = _FIRST_DELAY_S
        while not await self._begun():
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
        topic = root_topic(self._prefix, self.version + 1)
        await self._link.follow(topic)
        delay_s = _FIRST_DELAY_S
        while True:
            came, data = await self._deliveries.get()
            if came != topic or hashlib.sha256(data).hexdigest() in self._bad:
                continue
            try:
                await self._take([data])
            except RejectedError as exc:
                self._bad = {*sorted(self._bad)[:63], hashlib.sha256(data).hexdigest()}
                self._refused(f"root.json on {topic}: {exc}")
            except StoreError as exc:  # the device's trouble, which may pass
                self._refused(f"root.json on {topic}: {exc}")
                self.deliver(came, data)
            else:
                delay_s = _FIRST_DELAY_S
                await self._link.unfollow(topic)
                topic = root_topic(self._prefix, self.version + 1)
                await self._link.follow(topic)
                continue
            await asyncio.sleep(delay_s)  # whoever forges roots shall not keep this device busy
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def take_files(self, paths: Sequence[Path]) -> int:
        """Follow root.json files that somebody brought; the version that holds then.

        Raises:
            KeyFileError: A file cannot be read.
            RootError: One of them does not follow from what the device has.
            StoreError: The disk does not take it.
        """
        files = [read_small(path, max_bytes=MAX_ROOT_BYTES) for path in paths[:MAX_STEPS]]
        versions = {read_document(data).version: data for data in files}
        try:
            await self._take([])  # the anchor may have been exchanged since
            await self._take([versions[v] for v in sorted(versions) if v > self.version])
        except RejectedError as exc:
            raise RootError(str(exc)) from exc
        return self.version

    async def _begun(self) -> bool:
        """Find out what holds at this start; costs no child process when nothing changed."""
        try:
            anchor = read_small(self._anchor, max_bytes=MAX_ROOT_BYTES)
            newest = hashlib.sha256(newest_kept(anchor, self._folder)).hexdigest()
            seen = hashlib.sha256(anchor).hexdigest() + newest
            if self._journal.meta(_SEEN) != seen.encode():
                await self._take([], seen=seen)
            else:
                self._changed(self.version)
        except (KeyFileError, RootError, RejectedError, StoreError) as exc:
            self._refused(f"root {self._anchor}: {exc}")
            return False
        return True

    async def _take(self, files: Sequence[bytes], *, seen: str = "") -> None:
        async with self._desires.trust:
            trusted = await self._worker.take_roots(files, envelope=self._desires.envelope)
            remembered = self._journal.meta(_DEPLOY_KEYS)
            before = None if remembered is None else set(remembered.decode().split())
            self._desires.rotated(
                trusted,
                revoked=before is not None and bool(before - set(trusted.deploy_keys)),
                remember=_remembered(trusted, seen),
            )
        if trusted.version != self.version or seen:
            logger.info("root.followed version=%d", trusted.version)
        self._bad.clear()
        self.version = trusted.version
        self._refused("")
        self._changed(trusted.version)


def _remembered(trusted: TrustedRoot, seen: str) -> dict[str, bytes]:
    metas = {
        ROOT_VERSION: b"%d" % trusted.version,
        ROOT_DIGEST: trusted.digest.encode(),
        _DEPLOY_KEYS: " ".join(trusted.deploy_keys).encode(),
    }
    return {**metas, _SEEN: seen.encode()} if seen else metas
