"""What the device says, and when: state on every change, metrics by the clock, all through disk.

`out/status`, `out/info` and `out/reported` are retained and said anew on every connection; events
and metrics go through the outbox, so that days offline cost nothing but age.
"""

import asyncio
import logging
import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import FetchError, StoreError
from edgepack.agent.install.chain import Chain
from edgepack.agent.install.slot import Slot
from edgepack.agent.link import Link
from edgepack.agent.report.introduction import Introduction, Memory
from edgepack.agent.report.metering import Metering, short
from edgepack.agent.report.models import reported_models
from edgepack.agent.report.outbox import Outbox, Rank
from edgepack.agent.report.resources import Resources
from edgepack.agent.report.sender import Sender
from edgepack.agent.report.transitions import slot_events
from edgepack.agent.serve.registry import Registry
from edgepack.wire.desired import Desired
from edgepack.wire.messages import (
    Reported,
    ReportedModel,
    Scalar,
    render_flat,
    render_reported,
)
from edgepack.wire.topics import ONLINE, DeviceTopics

if TYPE_CHECKING:
    from edgepack.monitor.drift import DriftResult

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
_MAX_NOTICE = 500
_LAST_WORDS_POLL_S = 0.02


class Publisher:
    """Says what happens.

    Args:
        config: Device, prefix, intervals.
        instance: Random id of this installation.
        topics: This device's topics.
        outbox: Where reports wait.
        registry: The models, for their figures.
        memory: Keeps whether this installation has ever said what it is.
    """

    def __init__(
        self,
        config: AgentConfig,
        instance: str,
        topics: DeviceTopics,
        *,
        outbox: Outbox,
        registry: Registry,
        memory: Memory,
    ) -> None:
        self._config = config
        self._topics = topics
        self._outbox = outbox
        self._registry = registry
        self._slots: dict[str, Slot] = {}
        self._generation = 0
        self._desired: Desired | None = None
        self._refused = ""
        self._root_version = 0
        self._notices: dict[str, str] = {}
        self._started_s = time.monotonic()
        self._stale = asyncio.Event()
        self._cleared: list[str] = []
        self._resources = Resources(config.state_dir)
        self.metering = Metering(
            config.metrics,
            registry,
            self,
            lambda model: registry.input_figures(model),  # noqa: PLW0108  (compose sets it later)
        )
        self.introduction = Introduction(config, instance, topics, memory, self.notice)
        self.link: Link | None = None  # set by compose: the two need each other
        self.sender: Sender | None = None
        self.chain: Chain | None = None

    # What the installer tells: edgepack.agent.install.apply.Announcer

    def slot_changed(self, slot: Slot) -> None:
        """A slot went to another phase."""
        before = self._slots.get(slot.key)
        self._slots[slot.key] = slot
        self._stale.set()
        for kind, fields in slot_events(before, slot, self._chained()):
            self.event(kind, fields)

    def slot_removed(self, slot: Slot) -> None:
        """A model, or its challenger, is gone."""
        self._slots.pop(slot.key, None)
        if not slot.shadow:
            self._cleared.append(self._topics.latest(slot.name))
        self._stale.set()
        fields = {"model": slot.name, "shadow": True if slot.shadow else None, "phase": "removed"}
        self.event("transition", {**fields, **self._chained()})

    def refused(self, detail: str) -> None:
        """A desired state is not followed; empty when it is."""
        if detail == self._refused:
            return
        self._refused = detail
        self._stale.set()
        if detail:
            logger.warning("desired.refused detail=%s", detail)
            self.event("error", {"reason": "desired_refused", "detail": detail})

    def notice(self, kind: str, detail: str) -> None:
        """Something that a person should know; empty when it is over."""
        if detail == self._notices.get(kind, ""):
            return
        self._stale.set()
        if not detail:
            del self._notices[kind]
            return
        self._notices[kind] = detail[:_MAX_NOTICE]
        logger.warning("notice.%s detail=%s", kind, detail)
        self.event("error", {"reason": kind, "detail": detail[:_MAX_NOTICE]})

    # What others tell

    def restore(self, slots: Mapping[str, Slot], generation: int) -> None:
        """Begin with what the journal remembers; no events."""
        self._slots = dict(slots)
        self._generation = generation
        self._stale.set()

    def models(self) -> tuple[ReportedModel, ...]:
        """What is reported of each model now."""
        return reported_models(self._slots.values(), self._desired, self._registry.mirrors)

    def state(self) -> dict[str, Any]:
        """What `edgepack-agent status` shows beside the models."""
        return {
            "generation": self._generation,
            "root_version": self._root_version,
            "refused": self._refused,
            "notices": dict(self._notices),
        }

    def accepted(self, generation: int, desired: Desired | None) -> None:
        """A desired state is followed from now on, or none until the next."""
        self._generation = generation
        self._desired = desired
        self._stale.set()

    def rooted(self, version: int) -> None:
        """The root of trust that holds from now on."""
        self._root_version = version
        self._stale.set()

    def drifted(self, name: str, result: "DriftResult") -> None:
        """Inputs completed a window."""
        if not result.alarm:
            return
        features = sorted(result.drifted, key=lambda name: -result.scores[name])
        logger.warning("drift.alarm model=%s features=%d", name, len(features))
        self.event(
            "drift",
            {
                "model": name,
                "features": ",".join(features[:10]),
                "feature_count": len(features),
                "drift_score_max": max(result.scores.values()),
                "drift_threshold": result.threshold,
            },
        )

    def prediction(self, model: str, fields: Mapping[str, Scalar | None]) -> None:
        """Tell a prediction that nobody asked for; without any broker there is nobody to tell."""
        if self._config.broker.url is not None:
            self._put(self._topics.prediction(model), fields, Rank.PREDICTION)

    def event(self, kind: str, fields: Mapping[str, Scalar | None]) -> None:
        """Report an event."""
        self._put(self._topics.event(kind), fields, Rank.EVENT)

    # Loops

    async def connected(self) -> None:
        """Say everything retained; called on every new connection."""
        link = self._must_link()
        self._must_sender().connected()
        await link.publish(self._topics.status, ONLINE, retain=True)
        await self._say_reported(link)
        await self.introduction.say(link)
        self._tell_drops()

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_reported())
            tasks.create_task(self._must_sender().run())
            tasks.create_task(self.metering.run())
            tasks.create_task(self.introduction.keep_said(self._must_link()))
            tasks.create_task(self.introduction.watch_conflict(self._must_link()))

    async def _keep_reported(self) -> None:
        while True:
            await self._stale.wait()
            link = self._must_link()
            await link.connected.wait()
            self._stale.clear()
            try:
                await self._say_reported(link)
                while self._cleared:
                    await link.publish(self._cleared[0], b"", retain=True)
                    self._cleared.pop(0)
            except FetchError:
                self._stale.set()
                await asyncio.sleep(_RETRY_S)

    # What edgepack.agent.report.metering tells

    def metrics(self, model: str, fields: Mapping[str, Scalar | None]) -> None:
        """Figures of one model."""
        self._put(self._topics.metrics(model), fields, Rank.METRIC)
        if model in self._registry.mirrors:  # what `out/reported` says of it grows old
            self._stale.set()

    def agent(self) -> None:
        """Figures of the agent and the device."""
        fields = {**self.agent_figures(), **self._resources.figures()}
        self._put(self._topics.agent, short(fields), Rank.METRIC)

    async def latest(self, model: str, fields: Mapping[str, Scalar | None]) -> None:
        """Figures and prediction of one model, to be retained."""
        if not self.is_connected:
            return
        payload = render_flat({**fields, "ts": _now_ms()})
        try:
            topic = self._topics.latest(model)
            await self._must_link().publish(topic, payload, qos=0, retain=True)
        except FetchError as exc:
            logger.debug("latest.lost error=%s", exc)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there."""
        return self.link is not None and self.link.connected.is_set()

    async def _say_reported(self, link: Link) -> None:
        reported = Reported(
            device=self._config.device,
            generation=self._generation,
            models=self.models(),
            refused=self._refused,
            ts=_now_ms(),
            root_version=self._root_version,
            notices=dict(self._notices),
            events=self._events(),
        )
        await link.publish(self._topics.reported, render_reported(reported), retain=True)

    def _put(self, topic: str, fields: Mapping[str, Scalar | None], rank: Rank) -> None:
        online = self.link is not None and self.link.connected.is_set()
        payload = render_flat({"ts": _now_ms(), **fields})
        self._outbox.put(topic, payload, rank=rank, live=online)
        if self.sender is not None:
            self.sender.filled()

    async def settle(self, timeout_s: float) -> None:
        """Wait until the broker has what was said while it was there, but no longer than this."""
        until_s = time.monotonic() + timeout_s
        while (
            self._outbox.live(())
            and self._must_link().connected.is_set()
            and time.monotonic() < until_s
        ):
            await asyncio.sleep(_LAST_WORDS_POLL_S)

    def _tell_drops(self) -> None:
        dropped = self._outbox.dropped
        count = dropped.reports - dropped.told
        if count:
            self.event("error", {"reason": "reports_dropped", "count": count})
            self._outbox.drops_told()

    def _chained(self) -> dict[str, Scalar | None]:
        """Where the signed form of an event that was just kept will stand."""
        if self.chain is None or self.chain.who is None:
            return {}
        head, clock = self.chain.head(), self.chain.who.clock()
        believed = clock == "plausible"
        return {
            "number": head.number,
            "hash": head.hash,
            "clock": clock,
            "unchecked": None if believed else "expiry",
        }

    def _events(self) -> int:
        try:
            return self.chain.head().number if self.chain is not None else 0
        except StoreError:  # a disk that fails must not keep the device from saying so
            return 0

    def agent_figures(self) -> dict[str, Scalar | None]:
        """What the agent says of itself on `out/agent`."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "memory_bytes": _resident_bytes(),
            "outbox_rows": len(self._outbox),
            "outbox_bytes": self._outbox.size_bytes,
            "outbox_dropped": self._outbox.dropped.reports,
            "outbox_dropped_events": self._outbox.dropped.events,
            "reconnects": self._must_link().reconnects,
        }

    def _must_sender(self) -> Sender:
        if self.sender is None:
            raise RuntimeError("the publisher runs before it was wired to a sender")
        return self.sender

    def _must_link(self) -> Link:
        if self.link is None:
            raise RuntimeError("the publisher runs before it was wired to a link")
        return self.link


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _resident_bytes() -> int | None:
    try:
        with Path("/proc/self/statm").open(encoding="ascii") as handle:
            return int(handle.read(200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
