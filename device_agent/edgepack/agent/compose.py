"""Wires the parts of the agent together; the only module that knows them all."""

import asyncio
import contextlib
import importlib.metadata
import logging
import signal
from pathlib import Path
from typing import Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.control import ControlServer
from edgepack.agent.disk import FolderLock, make_folder
from edgepack.agent.errors import FetchError
from edgepack.agent.install.apply import Installer
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.desires import Desires
from edgepack.agent.install.fetch import Fetcher
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.worker import Worker
from edgepack.agent.link import Incoming, Link
from edgepack.agent.report.outbox import Outbox
from edgepack.agent.report.publisher import Publisher, describe_device
from edgepack.agent.serve.mqtt import RequestServer
from edgepack.agent.serve.registry import Registry
from edgepack.trust.decode import encode
from edgepack.wire.desired import Desired
from edgepack.wire.topics import DeviceTopics

logger = logging.getLogger(__name__)

_RUNNING = "running"
_DRAIN_S = 5.0


class Agent:
    """The agent of one device.

    Args:
        config: agent.toml.

    Raises:
        StoreError: The state folder cannot be used, or another agent uses it.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        state_dir = config.state_dir
        make_folder(state_dir)
        self._lock = FolderLock(state_dir / "agent.lock")
        self._lock.acquire()
        self._topics = DeviceTopics(config.prefix, config.device)
        self._journal = Journal(state_dir / "agent.db")
        self._outbox = Outbox(state_dir / "outbox.db", max_rows=config.limits.outbox_rows)
        blobs = BlobStore(state_dir)
        worker = Worker(Path(config.root), self_test_timeout_s=config.limits.self_test_s)
        instance = self._journal.instance()
        self._registry = Registry(config.drift)
        self._publisher = Publisher(
            config,
            self._topics,
            describe_device(
                config, instance=instance, version=importlib.metadata.version("edgepack")
            ),
            self._outbox,
            self._registry,
        )
        self._server = RequestServer(
            self._registry,
            self._topics,
            config.predictions,
            pending=config.limits.pending_requests,
            drifted=self._publisher.drifted,
        )
        self._link = Link(
            config.broker,
            self._topics,
            f"edgepack-{config.device}-{instance[:8]}",
            subscriptions=[
                self._topics.desired,
                self._topics.infer("+"),
                self._topics.truth("+"),
            ],
            on_connect=self._publisher.connected,
            on_message=self._route,
        )
        self._publisher.link = self._server.link = self._link
        self.installer = Installer(
            journal=self._journal,
            blobs=blobs,
            fetcher=Fetcher(
                blobs,
                self._link,
                prefix=config.prefix,
                max_bundle_bytes=int(config.limits.max_bundle_mb * 1e6),
            ),
            worker=worker,
            serving=self._registry,
            announcer=self._publisher,
            probation=config.probation,
        )
        self._desires = Desires(
            config,
            self._journal,
            worker,
            accepted=self._accept,
            refused=self._publisher.refused,
        )

    async def start(self) -> None:
        """Serve what was served before; needs no network."""
        unclean = self._journal.meta(_RUNNING) == b"1"
        self._journal.set_meta(_RUNNING, b"1")
        self._publisher.restore(self.installer.slots.by_name, 0)
        self._desires.restore()  # first: what fails now fails under its generation
        await self.installer.start(unclean=unclean)

    async def run(self) -> None:
        """Start, then work until SIGTERM or SIGINT (or cancelled); leave everything tidy."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self.start()
        logger.info("agent.started device=%s", self._config.device)
        work = [
            asyncio.create_task(self.installer.run(), name="installer"),
            asyncio.create_task(self._desires.run(), name="desires"),
            asyncio.create_task(self._publisher.run(), name="publisher"),
            asyncio.create_task(
                ControlServer(
                    self._config.state_dir, {"install": self._install, "status": self._status}
                ).run(),
                name="control",
            ),
        ]
        if self._config.broker.url is not None:
            work.append(asyncio.create_task(self._link.run(), name="link"))
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*work, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a part never ends by itself: this raises why it did
        finally:
            stopped.cancel()
            await self._server.drain(_DRAIN_S)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.close()
            logger.info("agent.stopped device=%s", self._config.device)

    def close(self) -> None:
        """Stop tidily: the next start is not an unclean one."""
        self.installer.stop()
        self._registry.close()
        self._journal.set_meta(_RUNNING, b"0")
        self._journal.close()
        self._outbox.close()
        self._lock.release()

    def _accept(self, desired: Desired) -> None:
        self._publisher.accepted(desired.generation)
        self.installer.desire(desired)

    def _route(self, message: Incoming) -> None:
        if message.topic == self._topics.desired:
            self._desires.deliver(message.payload)
        elif message.topic.startswith(self._topics.infer("")):
            self._server.infer(message)
        elif message.topic.startswith(self._topics.truth("")):
            self._server.truth(message)

    async def _install(self, request: dict[str, Any]) -> dict[str, Any]:
        slot = await self.installer.install_file(Path(str(request.get("path"))))
        return {"model": encode(slot.reported())}

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"connected": self._link.connected.is_set()}


async def install_alone(config: AgentConfig, path: Path) -> dict[str, Any]:
    """Install a file while no agent runs; the next start goes on with its probation.

    Raises:
        EdgepackError: As `Installer.install_file`.
    """
    agent = Agent(config)
    try:
        with contextlib.suppress(FetchError):
            await agent.start()
        slot = await agent.installer.install_file(path)
        return {"model": encode(slot.reported())}
    finally:
        agent.close()
