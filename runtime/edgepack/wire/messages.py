"""What a device says: information, reported state, metrics, predictions, events.

Metrics, predictions and events are flat JSON with units in the names, so that Telegraf, Node-RED,
Grafana and Home Assistant read them without code. A value that is missing or not finite is left
out: NaN is never written.
"""

import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import TypeVar

from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue, parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.topics import MAX_REPORT_BYTES, MAX_REQUEST_BYTES

T = TypeVar("T")
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a device is (`out/info`, retained).

    Attributes:
        device: Its id.
        agent_version: Version of edgepack on it.
        instance: Random id of this installation; two of them under one device id are a mistake.
        tags: Its groups.
        machine: "x86_64", "aarch64", "armv7l".
        cpu_count: Processors it may use.
        memory_bytes: Physical memory.
        system: Operating system and kernel, for people.
        python: Python version.
        engines: Engine → version.
        key: Public key of the device, which signs its events: 32 bytes in hex, or "" before it has
            one.
        run: Random id of this start of the agent; with `instance` it tells two agents apart that
            share a copied state folder.
        replaces: The installation that was here before and whose memory (floors, generation) this
            one does not have, or "".
    """

    device: str
    agent_version: str
    instance: str
    tags: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0
    system: str = ""
    python: str = ""
    engines: dict[str, str] = field(default_factory=dict)
    key: str = ""
    run: str = ""
    replaces: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One bundle as a device knows it: digest, version, and sequence of its signature."""

    digest: str
    version: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A version that waits for a person.

    Attributes:
        digest: The bundle digest; `in/cmd/install` names it.
        version: For people.
        size_bytes: Of the `.edgepack` file; 0 if it is not known.
        expires_s: Seconds since 1970 after which it can no longer be begun.
    """

    digest: str
    version: str
    size_bytes: int = 0
    expires_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedShadow:
    """The challenger beside a model.

    Attributes:
        phase: A state of the table in docs/operations.md ("shadowing", "rejected", …).
        target: Digest that the phase is about.
        active: What sees the inputs now.
        variant: Its variant.
        reason: Why it is gone, machine-readable, or "".
        detail: The same for people, or "".
        requests: Inputs that it answered beside the model.
        dropped: Inputs that it never saw, because it was behind.
        errors: Inputs that it failed on.
        figures: Disagreement and latency so far; `out/metrics/<model>` has them as `shadow_…`.
    """

    phase: str
    target: str = ""
    active: Release | None = None
    variant: str = ""
    reason: str = ""
    detail: str = ""
    requests: int = 0
    dropped: int = 0
    errors: int = 0
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedModel:
    """The state of one model on a device.

    Attributes:
        name: The model's name.
        phase: A state of the table in docs/operations.md ("probation", "confirmed", …).
        target: Digest that the phase is about: the one being installed, or the active one.
        active: What answers requests now.
        previous: What answered before it and is still on disk.
        confirmed: The last one that passed its probation.
        variant: The active variant ("onnx-int8").
        reason: Why the last install was rejected or rolled back, machine-readable, or "".
        detail: The same for people, one line, or "".
        held: True while a local rollback or install overrules the desired state.
        hold: Which of the two, "rollback" or "install", or "".
        self_test: Figures of the active variant's self-test.
        floor: Smallest sequence that the device accepts of this model.
        offered: A version that waits for a person.
        shadow: The challenger beside it.
    """

    name: str
    phase: str
    target: str = ""
    active: Release | None = None
    previous: Release | None = None
    confirmed: Release | None = None
    variant: str = ""
    reason: str = ""
    detail: str = ""
    held: bool = False
    hold: str = ""
    self_test: dict[str, float] = field(default_factory=dict)
    floor: int = 0
    offered: Offered | None = None
    shadow: ReportedShadow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a device runs (`out/reported`, retained).

    Attributes:
        device: Its id.
        generation: Of the desired state that it last accepted; 0 before the first.
        models: One entry each.
        refused: Why the desired state now on the broker is not followed, or "".
        ts: Milliseconds since 1970, by the device's clock.
        root_version: Of the root of trust that it follows; 0 when it does not know yet.
        events: How many events the device's history has.
        notices: What a person should know, one line each by kind: `clock`, `unchecked`, `conflict`,
            `reinstalled`, `root`, `audit`; see docs/operations.md.
    """

    device: str
    generation: int
    models: tuple[ReportedModel, ...] = ()
    refused: str = ""
    ts: int = 0
    root_version: int = 0
    notices: dict[str, str] = field(default_factory=dict)
    events: int = 0


def render_info(info: Info) -> bytes:
    """Canonical JSON."""
    return render(encode(info))


def parse_info(payload: bytes) -> Info:
    """Parse `out/info`.

    Raises:
        WireError: It is not such a document.
    """
    return _parse(Info, payload, "info")


def render_reported(reported: Reported) -> bytes:
    """Canonical JSON; figures of a self-test that are not finite are left out."""
    models = tuple(
        replace(model, self_test={k: v for k, v in model.self_test.items() if math.isfinite(v)})
        for model in reported.models
    )
    return render(encode(replace(reported, models=models)))


def parse_reported(payload: bytes) -> Reported:
    """Parse `out/reported`.

    Raises:
        WireError: It is not such a document.
    """
    return _parse(Reported, payload, "reported state")


def render_flat(fields: Mapping[str, Scalar | None]) -> bytes:
    """Flat JSON; None, NaN and infinity are left out."""
    kept: dict[str, JsonValue] = {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
    return render(kept)


def parse_flat(payload: bytes, *, what: str) -> dict[str, JsonValue]:
    """Parse a JSON object from a device or an application.

    Raises:
        WireError: It is not an object, or larger than a request may be.
    """
    try:
        value = parse(payload, what=what, max_bytes=MAX_REQUEST_BYTES)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    if not isinstance(value, dict):
        raise WireError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value


def _parse(cls: type[T], payload: bytes, what: str) -> T:
    try:
        value = parse(payload, what=what, max_bytes=MAX_REPORT_BYTES)
        return decode(cls, value, what=what, ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
