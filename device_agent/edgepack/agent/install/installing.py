"""Everything that changes what is installed, put together.

Imported by `compose` only when the models answer already: a device that comes back from a power
cut serves first.
"""

import asyncio
from pathlib import Path

from edgepack.agent.config import AgentConfig
from edgepack.agent.install.apply import Installer
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.desires import Desires
from edgepack.agent.install.fetch import Fetcher
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.roots import ROOTS_FOLDER, Roots
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.worker import Worker
from edgepack.agent.link import Link
from edgepack.agent.report.publisher import Publisher
from edgepack.wire.desired import Desired


class Installing:
    """The installer and the desired states that it follows.

    Args:
        config: agent.toml.
        slots: What is there.
        journal: The agent's memory.
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
        blobs: BlobStore,
        serving: Serving,
        link: Link,
        publisher: Publisher,
    ) -> None:
        worker = Worker(
            Path(config.root),
            config.state_dir / ROOTS_FOLDER,
            self_test_timeout_s=config.limits.self_test_s,
        )
        self._publisher = publisher
        self.installer = Installer(
            slots=slots,
            journal=journal,
            blobs=blobs,
            fetcher=Fetcher(
                blobs,
                link,
                prefix=config.prefix,
                max_bundle_bytes=int(config.limits.max_bundle_mb * 1e6),
            ),
            worker=worker,
            serving=serving,
            announcer=publisher,
            probation=config.probation,
        )
        self.desires = Desires(
            config,
            journal,
            worker,
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

    def start(self) -> None:
        """Go on where the last run ended."""
        self.installer.start()
        self.desires.restore()

    async def run(self) -> None:
        """Follow desired states until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.installer.run())
            tasks.create_task(self.desires.run())
            tasks.create_task(self.roots.run())

    def _accept(self, desired: Desired) -> None:
        self._publisher.accepted(desired.generation)
        self.installer.desire(desired)

    def _abandon(self) -> None:
        self._publisher.accepted(self.desires.generation)
        self.installer.abandon()
