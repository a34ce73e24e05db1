"""Wires the parts of the agent together; the only module that knows them all.

Serving comes first: the modules that install, fetch and verify are imported when the models
answer already.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.decisions import Decisions
from edgepack.agent.disk import LOCK_NAME, FolderLock, make_folder
from edgepack.agent.errors import StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.chain import Who
from edgepack.agent.install.clock import DeviceClock
from edgepack.agent.install.journal import RUNNING
from edgepack.agent.install.read_only import COMPLAINT, copy_in_memory
from edgepack.agent.install.recover import recover
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.spare import SpareKeeper, open_journal
from edgepack.agent.link import Incoming, Link
from edgepack.agent.report.outbox import Outbox
from edgepack.agent.report.publisher import Publisher
from edgepack.agent.report.sender import Sender
from edgepack.agent.serve.commands import CommandServer
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.marks import FILE_NAME, EngineMarks
from edgepack.agent.serve.mqtt import RequestServer
from edgepack.agent.serve.policy import PredictionPolicy
from edgepack.agent.serve.registry import Registry
from edgepack.trust.decode import encode
from edgepack.wire.commands import WATCH
from edgepack.wire.topics import DeviceTopics, root_topic

if TYPE_CHECKING:
    from edgepack.agent.feed.wiring import Feeds
    from edgepack.agent.install.installing import Installing
    from edgepack.agent.serve.http.build import HttpService
    from edgepack.agent.systemd.service import Service

logger = logging.getLogger(__name__)

_DRAIN_S = 5.0
_SERVE_FIRST_S = 1.0
_LAST_WORDS_S = 5.0
_SETTLE_S = 0.2  # whoever waited for the device is answered before it sees to anything else


class Agent:
    """The agent of one device.

    Args:
        config: agent.toml.

    Raises:
        StoreError: The state folder cannot be used, or another agent uses it.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._topics = DeviceTopics(config.prefix, config.device)
        self._is_started = False
        self._http: HttpService | None = None
        self._installing: Installing | None = None
        self._early_desired: bytes | None = None
        forgotten = self._open_state()
        self._make_reports(forgotten)
        self._make_serving()
        self._make_link()
        self._publisher.link = self._server.link = self._commands.link = self._link
        self._publisher.sender = Sender(self._outbox, config.outbox, self._link)
        self._publisher.chain = self._journal.chain

    def _open_state(self) -> str:
        """Take the state folder; what was lost from it, for people, or ""."""
        config, state_dir = self._config, self._config.state_dir
        make_folder(state_dir)
        self._lock = FolderLock(state_dir / LOCK_NAME)
        self._lock.acquire()
        # where things are remembered, though perhaps not for long
        self._memory_dir = copy_in_memory(state_dir) if self._lock.is_read_only else state_dir
        self._journal, forgotten = open_journal(self._memory_dir)
        self._blobs = BlobStore(state_dir)
        self._instance = self._journal.instance()
        self._clock = DeviceClock(self._journal)
        self._outbox = Outbox(
            self._memory_dir / "outbox.db",
            max_rows=config.limits.outbox_rows,
            max_bytes=config.outbox.max_mb * 1e6,
            max_age_s=config.outbox.max_age_days * 86_400,
            now_s=self._clock.expiry_now_s,
        )
        self._who = Who(
            device=config.device,
            prefix=config.prefix,
            instance=self._instance,
            clock=lambda: self._clock.verdict().clock.value,
        )
        self._journal.chain.who = self._who
        self._marks = EngineMarks(self._memory_dir / FILE_NAME)
        return forgotten

    def _make_reports(self, forgotten: str) -> None:
        config = self._config
        self._registry = Registry(
            config.drift, trusted_truths=config.truths.trusted, marks=self._marks
        )
        self._publisher = Publisher(
            config,
            self._instance,
            self._topics,
            outbox=self._outbox,
            registry=self._registry,
            memory=self._journal,
        )
        self._publisher.notice("state", forgotten)
        if self._lock.is_read_only:
            self._publisher.notice("storage", COMPLAINT)
        spare = SpareKeeper(self._memory_dir, self._journal)
        self._slots = Slots(self._journal, self._blobs, self._publisher, spare=spare)

    def _make_serving(self) -> None:
        config = self._config
        pending = config.limits.pending_requests
        self._inference = Inference(
            self._registry, pending=pending, drifted=self._publisher.drifted
        )
        self._policy = PredictionPolicy(config.predictions, self._publisher.prediction)
        self._inference.listeners.append(self._policy.take)
        self._feeds = self._make_feeds()
        self._server = RequestServer(self._inference, self._topics, pending=pending)
        self.decisions = Decisions(self.installing)
        self._commands = CommandServer(
            self._topics,
            {**self.decisions.remote(), WATCH: self._publisher.metering.watched},
            lambda answer: self._publisher.event("command", answer),
        )

    def _make_link(self) -> None:
        client_id = f"edgepack-{self._config.device}-{self._instance[:8]}"
        self._link = Link(
            self._config.broker,
            self._topics,
            client_id,
            subscriptions=[
                self._topics.desired,
                self._topics.infer("+"),
                self._topics.truth("+"),
                self._topics.info,
                self._topics.status,
                self._topics.command("+"),
            ],
            live=self._feeds.filters if self._feeds else (),
            on_connect=self._publisher.connected,
            on_message=self._route,
        )
        if self._feeds is not None:
            self._feeds.connect(self._link, client_id)

    def _make_feeds(self) -> "Feeds | None":
        """Inputs and what follows from predictions, where agent.toml has any."""
        config = self._config
        if not (config.input or config.action or config.log.predictions):
            return None
        from edgepack.agent.feed.wiring import Feeds

        feeds = Feeds(config, self._topics, self._inference, self._publisher.notice)
        self._registry.changed.append(feeds.model_changed)
        self._registry.input_figures = feeds.figures
        return feeds

    async def start(self) -> None:
        """Serve what was served before; needs no network."""
        unclean = self._journal.meta(RUNNING) == b"1"
        self._registry.distrusts_disk = unclean
        self._remember_running(b"1")
        self._publisher.restore(self._slots.by_key, self._slots.generation)
        await recover(
            self._slots,
            self._registry,
            self._blobs.layout,
            unclean=unclean,
            suspects=self._marks.left,
        )
        self._is_started = True

    def installing(self) -> "Installing":
        """Everything that changes what is installed; made at the first call.

        Raises:
            StoreError: The state folder is on a read-only disk.
        """
        if self._lock.is_read_only:
            raise StoreError(COMPLAINT)
        if self._installing is None:
            from edgepack.agent.install.installing import Installing

            self._installing = Installing(
                self._config,
                slots=self._slots,
                journal=self._journal,
                clock=self._clock,
                who=self._who,
                blobs=self._blobs,
                serving=self._registry,
                link=self._link,
                publisher=self._publisher,
            )
            self._installing.start()
        return self._installing

    def _http_service(self) -> "HttpService":
        from edgepack.agent.serve.http.build import HttpService
        from edgepack.agent.serve.http.catalog import Catalog

        catalog = Catalog(
            registry=self._registry,
            expected=self._slots.answering,
            is_started=lambda: self._is_started,
        )
        return HttpService(
            self._config.http,
            self._inference,
            catalog,
            notice=self._publisher.notice,
            agent_figures=lambda: {
                **self._publisher.agent_figures(),
                "connected": self._link.connected.is_set(),
            },
        )

    async def run(self) -> None:
        """Start, then work until SIGTERM or SIGINT (or cancelled); leave everything tidy."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self._config.http.is_on:
            self._http = self._http_service()
            await self._http.open()  # it tells whoever asks that models are being loaded
        await self.start()
        logger.info("agent.started device=%s", self._config.device)
        parts: list[Coroutine[Any, Any, None]] = [self._publisher.run(), self._install_later()]
        if self._config.broker.url is not None:
            parts.append(self._link.run())
        service = self._service()
        if service is not None:
            parts.append(service.run())
        if self._feeds is not None:
            parts.append(self._feeds.run())
        if (Path(sys.prefix) / "../../trying").is_symlink():  # an upgrade is not decided
            from edgepack.agent.upgrade.proof import prove

            parts.append(prove(self._config.state_dir))
        if self._http is not None:
            parts.append(self._http.run())
        work = [asyncio.create_task(part) for part in parts]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*work, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a part never ends by itself: this raises why it did
        finally:
            stopped.cancel()
            if service is not None:
                service.stopping()
            await self._say_goodbye()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.close()
            logger.info("agent.stopped device=%s", self._config.device)

    async def _say_goodbye(self) -> None:
        """Let what is under way end, and what has not been told be told."""
        await self._server.drain(_DRAIN_S)
        if self._http is not None:
            await self._http.close()
        self._policy.flush()
        await self._publisher.settle(_LAST_WORDS_S)

    def close(self) -> None:
        """Stop tidily: the next start is not an unclean one."""
        if self._feeds is not None:
            self._feeds.close()
        if self._installing is not None:
            self._installing.installer.stop()
        self._registry.close()
        with contextlib.suppress(StoreError):
            self._clock.remember()
        self._remember_running(b"0")
        self._journal.close()
        self._outbox.close()
        if self._memory_dir != self._config.state_dir:
            shutil.rmtree(self._memory_dir, ignore_errors=True)
        self._lock.release()

    def _remember_running(self, value: bytes) -> None:
        try:
            self._journal.set_meta(RUNNING, value)
        except StoreError as exc:  # a full disk must not stop what answers
            logger.warning("agent.storage error=%s", exc)

    def _service(self) -> "Service | None":
        if "NOTIFY_SOCKET" not in os.environ:
            return None
        from edgepack.agent.systemd.service import Work, service_of

        def work() -> Work:
            return Work(running=self._inference.running, finished=self._inference.finished)

        return service_of(os.environ, work=work, status=self._status_line)

    def _status_line(self) -> str:
        answering = len(self._registry.all())
        broker = "connected" if self._link.connected.is_set() else "not connected"
        alone = "no broker" if self._config.broker.url is None else f"broker {broker}"
        return f"{answering} model{'' if answering == 1 else 's'} answering, {alone}"

    async def _install_later(self) -> None:
        if self._config.broker.url is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SERVE_FIRST_S):
                    await self._link.connected.wait()
            await asyncio.sleep(_SETTLE_S)
        await self._publisher.introduction.describe()
        if self._lock.is_read_only:
            await asyncio.Event().wait()  # until it is stopped
        # on a thread, so that requests are answered meanwhile
        await asyncio.to_thread(_import_installing)
        from edgepack.agent.control import ControlServer

        installing = self.installing()
        if self._early_desired is not None:
            installing.desires.deliver(self._early_desired)
        commands = {
            **self.decisions.local(),
            "root": self.root,
            "audit_publish": self._audit_publish,
            "status": self._status,
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(installing.run())
            tasks.create_task(ControlServer(self._config.state_dir, commands).run())

    def _route(self, message: Incoming) -> None:
        if message.topic == self._topics.desired:
            if self._lock.is_read_only:
                self._publisher.refused(COMPLAINT)
            elif self._installing is None:
                self._early_desired = message.payload
            else:
                self._installing.desires.deliver(message.payload)
        elif message.topic.startswith(self._topics.infer("")):
            self._server.infer(message)
        elif message.topic.startswith(self._topics.truth("")):
            self._server.truth(message)
        elif message.topic == self._topics.info:
            self._publisher.introduction.met(message.payload, retained=message.retained)
        elif message.topic == self._topics.status:
            self._publisher.introduction.called(message.payload, retained=message.retained)
        elif message.topic.startswith(self._topics.command("")):
            self._commands.take(message)
        elif message.topic.startswith(root_topic(self._config.prefix, 0)[:-1]):
            # a session that is kept may still bring one when nothing can be installed any more
            if not self._lock.is_read_only:
                self.installing().roots.deliver(message.topic, message.payload)
        elif self._feeds is not None:
            self._feeds.take(message)

    async def root(self, request: dict[str, Any]) -> dict[str, Any]:
        """Follow the root.json files under `paths`.

        Raises:
            EdgepackError: As `Roots.take_files`.
        """
        paths = [Path(str(path)) for path in request.get("paths", [])]
        return {"root_version": await self.installing().roots.take_files(paths)}

    async def _audit_publish(self, _: dict[str, Any]) -> dict[str, Any]:
        self.installing().sealer.resend()
        return {"events": self._journal.chain.head().number}

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        from edgepack.agent.report.now import process_facts, serving_facts

        models = [encode(model) for model in self._publisher.models()]
        return {
            **self._publisher.state(),
            "agent": process_facts(),
            "serving": serving_facts(self._registry.all()),
            "connected": self._link.connected.is_set(),
            "models": models,
        }


def _import_installing() -> None:
    import edgepack.agent.control
    import edgepack.agent.install.installing  # noqa: F401
