"""Signing the device's history, and publishing it.

Signing needs `cryptography`, so it is a job of the child process, for many events at once and at a
time when no other child is at work. An event that was not signed before a kill is signed after the
next start. On the broker the last few hundred events are retained, each under a topic of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from edgepack.agent.errors import FetchError, StoreError
from edgepack.agent.install.chain import Entry, Head, Who
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.transitions import IN_PROGRESS, Phase
from edgepack.agent.install.worker import Worker
from edgepack.runtime.version import version_of
from edgepack.trust import dsse
from edgepack.trust.errors import EdgepackError
from edgepack.trust.payload_types import CHECKPOINT_PAYLOAD_TYPE, EVENT_PAYLOAD_TYPE
from edgepack.wire.audit import (
    PLACES,
    Checkpoint,
    parse_checkpoint,
    parse_event,
    payload_hash,
    place_of,
    render_checkpoint,
    serving_after,
)
from edgepack.wire.topics import DeviceTopics

logger = logging.getLogger(__name__)

KEY_FILE = "device.key"
PUBLIC_KEY = "device_key"
KEPT = 1000  # signed events; older ones give way to a checkpoint
_KEPT_AT_MOST = KEPT + 256
_BATCH = 100
_SETTLE_S = 0.5
_PATIENCE_S = 60.0
_RETRY_S = 30.0
_LONG_RETRY_S = 600.0
_BUSY = IN_PROGRESS - {Phase.FETCHING}  # a slow line may take hours


class Says(Protocol):
    """What publishes: the link."""

    connected: asyncio.Event

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1."""


class Sealer:
    """Signs and publishes events.

    Args:
        state_dir: Where the device's key is, mode 0600.
        who: Whose events they are.
        journal: Holds the chain.
        worker: Signs in a child process.
        link: Publishes.
        slots: The slots as they are, to see whether an install is under way.
        keyed: Called with the public key in hex once there is one.
        notice: Called with one line when nothing can be signed, with "" when it can.
    """

    def __init__(
        self,
        state_dir: Path,
        who: Who,
        journal: Journal,
        worker: Worker,
        link: Says,
        *,
        slots: Callable[[], Iterable[Slot]],
        keyed: Callable[[str], None],
        notice: Callable[[str], None],
    ) -> None:
        self._key_file = state_dir / KEY_FILE
        self._who = who
        self._topics = DeviceTopics(who.prefix, who.device)
        self._journal = journal
        self._chain = journal.chain
        self._worker = worker
        self._link = link
        self._slots = slots
        self._keyed = keyed
        self._notice = notice
        self._appended = asyncio.Event()
        self._sealed = asyncio.Event()

    async def run(self) -> None:
        """Sign and publish until cancelled."""
        self._chain.appended = self._appended.set
        known = self._journal.meta(PUBLIC_KEY)
        if known is not None:
            self._keyed(known.decode())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_sealed())
            tasks.create_task(self._keep_published())

    async def seal(self) -> None:
        """Sign all that is not signed yet.

        Raises:
            RejectedError: The key file is no good.
            StoreError: The disk does not take it.
        """
        if self._journal.meta(PUBLIC_KEY) is None or not self._key_file.exists():
            await self._seal([])
        while entries := self._chain.unsigned(_BATCH):
            await self._seal(entries)
        if self._chain.count() > _KEPT_AT_MOST:
            await self._prune()

    def resend(self) -> None:
        """Publish the last events again: the broker lost them.

        Raises:
            StoreError: The disk does not take it.
        """
        self._chain.resend(PLACES)
        self._sealed.set()

    async def _keep_sealed(self) -> None:
        while True:
            self._appended.clear()
            try:
                await self._calm()
                await self.seal()
            except EdgepackError as exc:
                self._notice(f"events are not signed: {exc}")
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:  # a history that cannot be signed is no reason not to serve
                logger.exception("audit.defect")
                self._notice("events are not signed: the device's log tells why")
                await asyncio.sleep(_LONG_RETRY_S)
                continue
            self._notice("")
            self._sealed.set()
            await self._appended.wait()

    async def _calm(self) -> None:
        """Wait until no install is at work: two children at once would need twice the memory."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.sleep(_SETTLE_S)
                while any(slot.phase in _BUSY for slot in self._slots()):
                    await asyncio.sleep(_SETTLE_S)
        except TimeoutError:
            pass

    async def _seal(self, entries: list[Entry]) -> None:
        documents = [(EVENT_PAYLOAD_TYPE, entry.payload) for entry in entries]
        sealed = await self._worker.seal(self._key_file, documents)
        known = self._journal.meta(PUBLIC_KEY)
        if known != sealed.key.encode():
            # it signs itself: the next batch has this event in it
            self._journal.set_metas(
                {PUBLIC_KEY: sealed.key.encode()},
                event="key",
                actor="agent",
                key=sealed.key,
                agent_version=version_of("edgepack"),
            )
            self._keyed(sealed.key)
            if known is not None:
                logger.warning("audit.new_key key=%s", sealed.key)
        with self._journal.transaction():
            for entry, envelope in zip(entries, sealed.envelopes, strict=True):
                self._chain.sign(entry.number, envelope)

    async def _prune(self) -> None:
        gone = self._chain.kept()[:-KEPT]
        head = Head(gone[-1].number, payload_hash(gone[-1].payload))
        events = [parse_event(entry.payload) for entry in gone]
        statement = Checkpoint(
            device=self._who.device,
            prefix=self._who.prefix,
            instance=self._who.instance,
            number=head.number,
            hash=head.hash,
            ts=events[-1].ts,
            serving=serving_after(self._serving_before(), events),
            key=(self._journal.meta(PUBLIC_KEY) or b"").decode(),
        )
        payload = render_checkpoint(statement)
        sealed = await self._worker.seal(self._key_file, [(CHECKPOINT_PAYLOAD_TYPE, payload)])
        with self._journal.transaction():
            self._chain.prune(head, sealed.envelopes[0])

    def _serving_before(self) -> dict[str, str]:
        envelope = self._chain.checkpoint()
        if envelope is None:
            return {}
        payload = dsse.unverified_payload(envelope, CHECKPOINT_PAYLOAD_TYPE)  # it is our own
        return dict(parse_checkpoint(payload).serving)

    async def _keep_published(self) -> None:
        while True:
            await self._sealed.wait()
            await self._link.connected.wait()
            try:
                self._chain.leave_unsent(PLACES)
                entries = self._chain.unsent(_BATCH)
                for entry in entries:
                    topic = self._topics.audit(place_of(self._who.instance, entry.number))
                    await self._link.publish(topic, entry.envelope or b"", retain=True)
                    self._chain.sent(entry.number)
            except (FetchError, StoreError) as exc:
                logger.warning("audit.unpublished error=%s", exc)
                await asyncio.sleep(_RETRY_S)
            else:
                if not entries:
                    self._sealed.clear()
