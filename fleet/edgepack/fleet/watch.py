"""What a fleet looks like now, from what its devices say.

`FleetView` is pure: messages go in, rows come out. `watch` feeds it from a broker and comes back
when the broker does. How rows are shown is the command line's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import TypedDict

import aiomqtt

from edgepack.fleet.connection import BrokerUrl, connect
from edgepack.fleet.errors import BrokerError
from edgepack.fleet.lease import leases
from edgepack.fleet.retained import bytes_of, read_retained
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.errors import WireError
from edgepack.wire.messages import (
    Info,
    Reported,
    ReportedModel,
    parse_flat,
    parse_info,
    parse_reported,
)
from edgepack.wire.topics import ONLINE, OutTopic, parse_out_topic

_KINDS = ("status", "info", "reported", "metrics/+", "latest/+", "event/+")
_RECONNECT_S = 1.0
_SNAPSHOT_S = 2.0  # who may only read has to wait as long; the others do not
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on one device; a device without models has one row with an empty model.

    Absent figures are None: the device has not said them.

    Attributes:
        device: The device's id.
        status: "online", "offline" or "unknown".
        model: The model's name, or "".
        version: Of the bundle that answers, or "".
        digest: Of the bundle that answers, or "".
        variant: Which form of it answers, or "".
        phase: Where its last install stands.
        reason: Why that was refused, machine-readable, or "".
        held: A local command on the device overrules the desired state.
        notices: Kinds of what the device wants a person to know ("clock, conflict"), or "".
        offered: Version that waits for a person, or "".
        shadow: Version of the challenger, or "".
        shadow_phase, shadow_reason: Where it stands, and why it is gone.
        shadow_disagreement: Share of its answers that differ from the model's, in 0..1.
        latency_p50_ms, latency_p99_ms: Of the last interval.
        requests, errors: Since the model was loaded.
        accuracy, accuracy_low, accuracy_high: With its 95 % interval.
        r2, mae: The same for a regression: R² and the mean absolute error.
        truths: How many truths these rest on.
        drift_features: How many features drift.
        seen_s: When the device last said something, in seconds since 1970 by this clock; None if
            all is from before.
    """

    device: str
    status: str
    model: str = ""
    version: str = ""
    digest: str = ""
    variant: str = ""
    phase: str = ""
    reason: str = ""
    held: bool = False
    notices: str = ""
    offered: str = ""
    shadow: str = ""
    shadow_phase: str = ""
    shadow_reason: str = ""
    shadow_disagreement: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    requests: float | None = None
    errors: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    r2: float | None = None
    mae: float | None = None
    truths: float | None = None
    drift_features: float | None = None
    seen_s: float | None = None


class _Shadow(TypedDict, total=False):
    shadow: str
    shadow_phase: str
    shadow_reason: str
    shadow_disagreement: float | None


_FIGURES = (
    "latency_p50_ms",
    "latency_p99_ms",
    "requests",
    "errors",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "r2",
    "mae",
    "truths",
    "drift_features",
)


@dataclass(frozen=True, slots=True)
class _Metrics:
    version: str
    figures: dict[str, float]


_NONE = _Metrics("", {})


@dataclass(slots=True)
class _Device:
    status: str = "unknown"
    info: Info | None = None
    reported: Reported | None = None
    metrics: dict[str, _Metrics] = field(default_factory=dict)
    seen_s: float | None = None


class FleetView:
    """The state of a fleet, message by message.

    Args:
        prefix: Topic prefix.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._devices: dict[str, _Device] = {}

    def take(self, topic: str, payload: bytes, *, now_s: float | None = None) -> str | None:
        """Take one message in.

        Args:
            topic: Its topic.
            payload: Its bytes; nothing for a topic that was cleared.
            now_s: When it came, in seconds since 1970; None if it was retained.

        Returns:
            The id of the device that it changed, or None if it is none of ours.
        """
        try:
            out = parse_out_topic(self._prefix, topic)
            device = self._devices.setdefault(out.device, _Device())
            if payload:
                _apply(device, out, payload)
        except WireError as exc:
            _log.debug("watch.ignored topic=%s error=%s", topic, exc)
            return None
        if now_s is not None and out.kind != "status":
            device.seen_s = now_s
        return out.device

    def online(self) -> set[str]:
        """Ids of the devices that are there."""
        return {row.device for row in self.rows() if row.status == ONLINE.decode()}

    def rows(self, device: str | None = None) -> list[Row]:
        """The rows of one device or of all, sorted by device and model."""
        names = sorted(self._devices) if device is None else [device]
        return [row for name in names for row in _rows(name, self._devices[name])]


def _apply(device: _Device, out: OutTopic, payload: bytes) -> None:
    if out.kind == "status":
        device.status = "online" if payload == ONLINE else "offline"
    elif out.kind == "info":
        device.info = parse_info(payload)
    elif out.kind == "reported":
        device.reported = parse_reported(payload)
    elif out.kind in ("metrics", "latest"):
        fields = parse_flat(payload, what=out.kind)
        # A stored report tells of the past: it must not stand where newer figures are.
        if not fields.get("is_historical") or out.name not in device.metrics:
            device.metrics[out.name] = _metrics(fields)


def _metrics(fields: dict[str, JsonValue]) -> _Metrics:
    figures = {
        name: value
        for name, value in fields.items()
        if name in _FIGURES and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return _Metrics(str(fields.get("model_version", "")), figures)


def _rows(name: str, device: _Device) -> Iterator[Row]:
    notices = device.reported.notices if device.reported is not None else {}
    empty = Row(
        device=name,
        status=device.status,
        seen_s=device.seen_s,
        notices=", ".join(sorted(notices)),
    )
    models = device.reported.models if device.reported is not None else ()
    if not models:
        yield empty
    for model in sorted(models, key=lambda one: one.name):
        yield _row(empty, model, device.metrics.get(model.name, _NONE))


def _row(empty: Row, model: ReportedModel, metrics: _Metrics) -> Row:
    row = replace(
        empty,
        model=model.name,
        version=model.active.version if model.active else "",
        digest=model.active.digest if model.active else "",
        variant=model.variant,
        phase=model.phase,
        reason=model.reason,
        held=model.held,
        offered=model.offered.version if model.offered else "",
        **_shadow_of(model),
    )
    if metrics.version != row.version:  # figures of the version before say nothing of this one
        return row
    return replace(row, **metrics.figures)  # type: ignore[arg-type]  # names of _FIGURES, floats


def _shadow_of(model: ReportedModel) -> _Shadow:
    shadow = model.shadow
    if shadow is None:
        return {}
    return {
        "shadow": shadow.active.version if shadow.active else "",
        "shadow_phase": shadow.phase,
        "shadow_reason": shadow.reason,
        "shadow_disagreement": shadow.figures.get("disagreement"),
    }


async def snapshot(broker: BrokerUrl, prefix: str) -> FleetView:
    """What the broker retains about the fleet now.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    view = FleetView(prefix)
    async with connect(broker) as client:
        filters = [f"{prefix}/+/out/{kind}" for kind in ("status", "info", "reported", "latest/+")]
        found = await read_retained(client, prefix, filters, timeout_s=_SNAPSHOT_S, strict=False)
    for topic, payload in found.items():
        view.take(topic, payload)
    return view


async def watch(
    broker: BrokerUrl, prefix: str, view: FleetView, *, every_s: float | None = None
) -> AsyncIterator[str]:
    """Feed a view from a broker for ever.

    Args:
        broker: Where the broker is.
        prefix: Topic prefix.
        view: What to feed.
        every_s: Devices are asked to tell their figures that often while this runs; None: they
            are not.

    Yields:
        The id of the device that a message has changed; "" when the connection was lost.

    Raises:
        BrokerError: The broker cannot be reached at the start. Later losses are waited out.
    """
    connected = False
    while True:
        try:
            async with connect(broker) as client:
                connected = True
                filters = [(f"{prefix}/+/out/{kind}", 1) for kind in _KINDS]
                await client.subscribe(filters)
                async with leases(client, prefix, view.online, every_s):
                    async for changed in _messages(client, view):
                        yield changed
        except BrokerError as exc:
            if not connected:
                raise
            _log.info("watch.disconnected error=%s", exc)
            yield ""
            await asyncio.sleep(_RECONNECT_S)


async def _messages(client: aiomqtt.Client, view: FleetView) -> AsyncIterator[str]:
    async for message in client.messages:
        now_s = None if message.retain else time.time()
        changed = view.take(message.topic.value, bytes_of(message), now_s=now_s)
        if changed is not None:
            yield changed
