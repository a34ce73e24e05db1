"""Everything that changes what is installed, put together.

Imported by `compose` only when the models answer already: a device that comes back from a power
cut serves first.
"""

import asyncio
import logging
from pathlib import Path

from edgepack.agent.config import AgentConfig, LimitsConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.apply import Installer
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.chain import Who
from edgepack.agent.install.clock import DeviceClock
from edgepack.agent.install.desires import Desires
from edgepack.agent.install.device_facts import Device
from edgepack.agent.install.fetch import Fetcher
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.retest import Retests
from edgepack.agent.install.roots import ROOTS_FOLDER, Roots
from edgepack.agent.install.sealing import Sealer
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.sources.find import Sources
from edgepack.agent.install.sources.mqtt import Retained
from edgepack.agent.install.worker import Worker
from edgepack.agent.link import Link
from edgepack.agent.report.publisher import Publisher
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.shadows import Shadows
from edgepack.runtime.contest.values import ContestLimits
from edgepack.runtime.fingerprint import fingerprint
from edgepack.wire.desired import Desired
from edgepack.wire.throttle import Throttle

logger = logging.getLogger(__name__)

_CLOCK_INTERVAL_S = 3600.0


class Installing:
    """The installer and the desired states that it follows.

    Args:
        config: agent.toml.
        slots: What is there.
        journal: The agent's memory.
        clock: Says whether the time can be believed.
        who: Whose events are signed.
        blobs: The store.
        serving: Answers requests.
        link: The connection to the broker.
        publisher: Tells what happens.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        slots: Slots,
        journal: Journal,
        clock: DeviceClock,
        who: Who,
        blobs: BlobStore,
        serving: Registry,
        link: Link,
        publisher: Publisher,
    ) -> None:
        worker = Worker(
            Path(config.root),
            config.state_dir / ROOTS_FOLDER,
            self_test_timeout_s=config.limits.self_test_s,
            limits=_contest_limits(config.limits),
        )
        self._publisher = publisher
        self._clock = clock
        self.installer = Installer(
            slots=slots,
            journal=journal,
            blobs=blobs,
            fetcher=_fetcher(config, blobs, link, worker),
            worker=worker,
            serving=serving,
            challengers=Shadows(
                serving,
                blobs.layout,
                config.shadow,
                config.probation,
                failed=self._challenger_failed,
            ),
            announcer=publisher,
            probation=config.probation,
            now_s=clock.expiry_now_s,
        )
        self.retests = Retests(
            slots,
            journal,
            worker,
            serving,
            blobs.layout,
            testing=self.installer.testing,
            fingerprint=fingerprint,
            swapped=self._swapped,
            notice=lambda detail: publisher.notice("self_test", detail),
        )
        self.desires = Desires(
            config,
            journal,
            worker,
            clock,
            accepted=self._accept,
            unchanged=self.installer.reconsider,
            abandoned=self._abandon,
            refused=publisher.refused,
        )
        self.roots = Roots(
            config,
            journal,
            worker,
            link,
            self.desires,
            changed=publisher.rooted,
            refused=lambda detail: publisher.notice("root", detail),
        )
        self.sealer = Sealer(
            config.state_dir,
            who,
            journal,
            worker,
            link,
            slots=slots.by_key.values,
            keyed=publisher.introduction.keyed,
            notice=lambda detail: publisher.notice("audit", detail),
        )

    def start(self) -> None:
        """Go on where the last run ended."""
        self.installer.start()
        self.desires.restore()

    async def run(self) -> None:
        """Follow desired states until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.installer.run())
            tasks.create_task(self.retests.run())
            tasks.create_task(self.desires.run())
            tasks.create_task(self.roots.run())
            tasks.create_task(self.sealer.run())
            tasks.create_task(self._watch_clock())

    async def _watch_clock(self) -> None:
        while True:
            self._look_at_clock()
            try:
                self._clock.remember()
            except StoreError as exc:
                logger.warning("clock.storage error=%s", exc)
            await asyncio.sleep(_CLOCK_INTERVAL_S)

    def _swapped(self, key: str) -> None:
        if self.installer.slots[key].is_unproven:  # its counters began anew
            self.installer.probations.watch(key)

    def _look_at_clock(self) -> None:
        complaint = self._clock.verdict().complaint
        self._publisher.notice("clock", complaint and f"the clock {complaint}")
        self._publisher.notice("unchecked", complaint and f"expiry: the clock {complaint}")

    def _accept(self, desired: Desired) -> None:
        self._look_at_clock()
        self._publisher.accepted(desired.generation, desired)
        self.installer.desire(desired)

    def _challenger_failed(self, name: str, detail: str) -> None:
        self.installer.challenger_failed(name, detail)

    def _abandon(self) -> None:
        self._publisher.accepted(self.desires.generation, None)
        self.installer.abandon()


def _contest_limits(limits: LimitsConfig) -> ContestLimits:
    most_mb = limits.max_memory_mb
    return ContestLimits(
        total_s=limits.self_test_s,
        variant_s=limits.self_test_variant_s,
        compare_s=limits.self_test_compare_s,
        max_latency_ms=limits.max_latency_ms,
        max_memory_bytes=None if most_mb is None else int(most_mb * 1e6),
    )


def _fetcher(config: AgentConfig, blobs: BlobStore, link: Retained, worker: Worker) -> Fetcher:
    bytes_s = config.limits.download_kbps * 1000 / 8
    sources = Sources(
        link=link,
        prefix=config.prefix,
        config=config.fetch,
        throttle=Throttle(bytes_s) if bytes_s else None,
        max_bundle_bytes=int(config.limits.max_bundle_mb * 1e6),
    )
    device = Device(blobs.staging, config.device_classes, worker)
    return Fetcher(blobs, sources, device, jitter_s=config.fetch.jitter_s, name=config.device)
