"""Watching devices until each has done what it was told, or has refused."""

import asyncio
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import aiomqtt

from edgepack.fleet.errors import WaitTimeoutError
from edgepack.fleet.retained import bytes_of
from edgepack.wire.desired import Mode
from edgepack.wire.errors import WireError
from edgepack.wire.messages import Reported, ReportedModel, parse_reported
from edgepack.wire.topics import ONLINE, DeviceTopics, parse_out_topic

# A device that takes over a new desired state may first repeat what it thought of the last one.
SETTLE_S = 1.0
_BAD_PHASES = frozenset({"rejected", "rolled_back"})


class Verdict(enum.Enum):
    """How far a device is."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What one device shall reach.

    Attributes:
        device: Its id.
        model: The model's name.
        digest: The bundle that shall be confirmed; None when the model shall be gone.
        mode: Offered and running as challenger are goals as well; with None as the digest, which
            entry shall be gone.
        generation: Of the desired state that says so.
    """

    device: str
    model: str
    digest: str | None
    generation: int
    mode: Mode = Mode.INSTALL


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProgress:
    """How far one device is.

    Attributes:
        device: Its id.
        verdict: Whether it is through.
        phase: The device's word for it, "offline", or "waiting".
        reason: Why it refused, machine-readable, or "".
        detail: The same for people, or "".
        online: From its status; None if it was never seen.
    """

    device: str
    verdict: Verdict = Verdict.PENDING
    phase: str = "waiting"
    reason: str = ""
    detail: str = ""
    online: bool | None = None


def judge(goal: Goal, reported: Reported, *, fresh: bool = True) -> DeviceProgress:
    """Say how far a device is by what it reports. Pure.

    Args:
        goal: What it shall reach.
        reported: What it says.
        fresh: False for a retained report, which may be older than the goal.
    """
    progress = DeviceProgress(device=goal.device)
    if reported.generation < goal.generation:
        if reported.refused and fresh:
            return _refused(progress, "refused", "desired_refused", reported.refused)
        return progress
    model = next((one for one in reported.models if one.name == goal.model), None)
    if goal.mode is Mode.OFFER:
        return _judge_offer(goal, model, replace(progress, detail=reported.refused))
    if goal.mode is Mode.SHADOW:
        return _judge_shadow(goal, model, replace(progress, detail=reported.refused))
    if model is None:
        if goal.digest is None:
            return replace(progress, verdict=Verdict.DONE, phase="removed")
        return replace(progress, detail=reported.refused)
    if goal.digest is None:
        return replace(progress, phase=model.phase, detail=reported.refused)
    return _judge_install(goal.digest, model, replace(progress, detail=reported.refused))


def _judge_offer(
    goal: Goal, model: ReportedModel | None, progress: DeviceProgress
) -> DeviceProgress:
    offered = model.offered.digest if model is not None and model.offered is not None else None
    if goal.digest is None:
        return _done(progress, "removed") if offered is None else progress
    active = model.active.digest if model is not None and model.active is not None else ""
    if goal.digest in (offered, active):
        return _done(progress, "offered")
    return progress


def _judge_shadow(
    goal: Goal, model: ReportedModel | None, progress: DeviceProgress
) -> DeviceProgress:
    shadow = model.shadow if model is not None else None
    if goal.digest is None:
        return _done(progress, "removed") if shadow is None else progress
    if model is not None and model.active is not None and model.active.digest == goal.digest:
        return _refused(progress, "refused", "is_champion", "it is the version that answers")
    if shadow is None or shadow.target != goal.digest:
        return progress
    if shadow.phase in _BAD_PHASES:
        return _refused(progress, shadow.phase, shadow.reason, shadow.detail)
    if shadow.phase == "shadowing":
        return _done(progress, shadow.phase)
    return replace(progress, phase=shadow.phase, detail=shadow.detail or progress.detail)


def _done(progress: DeviceProgress, phase: str) -> DeviceProgress:
    return replace(progress, verdict=Verdict.DONE, phase=phase, detail="")


def _judge_install(digest: str, model: ReportedModel, progress: DeviceProgress) -> DeviceProgress:
    active = model.active.digest if model.active else ""
    confirmed = model.confirmed.digest if model.confirmed else ""
    if active == confirmed == digest:  # the phase may still tell of another one's refusal
        return replace(progress, verdict=Verdict.DONE, phase="confirmed", detail=model.detail)
    if model.target == digest and model.phase in _BAD_PHASES:
        return _refused(progress, model.phase, model.reason, model.detail)
    if model.held and active != digest:
        return _refused(progress, "held", "held", "a local command on the device overrules it")
    if model.target != digest:
        return progress
    return replace(progress, phase=model.phase, detail=model.detail or progress.detail)


def _refused(progress: DeviceProgress, phase: str, reason: str, detail: str) -> DeviceProgress:
    return replace(progress, verdict=Verdict.REFUSED, phase=phase, reason=reason, detail=detail)


class Follower:
    """Follows devices over a connection of its own; subscribe BEFORE publishing the wish.

    Args:
        client: A connection that nobody else reads from.
        prefix: Topic prefix.
        on_progress: Called whenever a device gets on.
    """

    def __init__(
        self,
        client: aiomqtt.Client,
        prefix: str,
        on_progress: Callable[[DeviceProgress], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._on_progress = on_progress
        self._state: dict[str, DeviceProgress] = {}
        self._refused_at: dict[str, float] = {}

    async def subscribe(self, devices: list[str]) -> None:
        """Listen to what these devices report."""
        for device in devices:
            topics = DeviceTopics(self._prefix, device)
            await self._client.subscribe([(topics.reported, 1), (topics.status, 1)])
            self._state[device] = DeviceProgress(device=device)

    async def wait(self, goals: list[Goal], *, timeout_s: float) -> tuple[DeviceProgress, ...]:
        """Wait until every device is through.

        Returns:
            How each ended, by device id.

        Raises:
            WaitTimeoutError: Some device is not through in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        wanted = {goal.device: goal for goal in goals}
        messages = aiter(self._client.messages)
        while left := self._left(wanted):
            try:
                async with asyncio.timeout_at(min([deadline, *self._settling(wanted)])):
                    self._observe(wanted, await anext(messages))
            except TimeoutError:
                if loop.time() >= deadline:
                    raise self._timeout(left, timeout_s) from None
        for device in sorted(self._refused_at.keys() & wanted.keys()):
            self._on_progress(self._state[device])
        return tuple(self._state[device] for device in sorted(wanted))

    def _left(self, wanted: Mapping[str, Goal]) -> list[str]:
        settling = self._settling(wanted)
        return [
            device
            for device in sorted(wanted)
            if self._state[device].verdict is Verdict.PENDING
            or self._refused_at.get(device, -SETTLE_S) + SETTLE_S in settling
        ]

    def _settling(self, wanted: Mapping[str, Goal]) -> list[float]:
        """When the refusals that are still young will count."""
        now = asyncio.get_running_loop().time()
        times = [at + SETTLE_S for device, at in self._refused_at.items() if device in wanted]
        return [time for time in times if time > now]

    def _observe(self, wanted: Mapping[str, Goal], message: aiomqtt.Message) -> None:
        try:
            topic = parse_out_topic(self._prefix, message.topic.value)
            old = self._state[topic.device]
            if topic.kind == "status":
                new = replace(old, online=bytes_of(message) == ONLINE)
            else:
                reported = parse_reported(bytes_of(message))
                new = judge(wanted[topic.device], reported, fresh=not message.retain)
                new = replace(new, online=old.online)
        except (WireError, KeyError):
            return  # not a document of ours; the device will have to say it again
        self._state[topic.device] = new
        if topic.kind == "reported":
            self._refused_at.pop(topic.device, None)
            if new.verdict is Verdict.REFUSED:
                self._refused_at[topic.device] = asyncio.get_running_loop().time()
        # a refusal is told when it counts: the device may be about to follow a new root
        if new != old and new.verdict is not Verdict.REFUSED:
            self._on_progress(new)

    def _timeout(self, left: list[str], timeout_s: float) -> WaitTimeoutError:
        away = {None: ", never seen", False: ", offline", True: ""}
        parts = []
        for device in left:
            state = self._state[device]
            detail = f": {state.detail}" if state.detail else ""
            parts.append(f"{device} ({state.phase}{away[state.online]}{detail})")
        return WaitTimeoutError(
            f"not done after {timeout_s:g} s: {', '.join(parts)}",
            hint="the desired state stays on the broker: a device acts on it when it comes back",
        )
