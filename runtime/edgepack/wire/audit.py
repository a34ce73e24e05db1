"""A device's signed history: what every event says, and how each is bound to the one before.

An event is a JSON payload; its signature is DSSE with the device's key. Each names the hash of the
payload before it, so that none can be left out, changed or moved. Making them is the agent's,
proving them `edgepack.fleet.audit`'s; this module knows the documents only.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.topics import check_id, check_prefix

MAX_EVENT_BYTES = 8 * 1024
PLACES = 64  # retained on the broker: the last so many events of a device
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event of a device.

    Attributes:
        device, prefix: Whose it is.
        instance: Random id of the installation; a new one begins a new chain.
        number: 1 for the first, one more for each that follows.
        previous: Hash of the payload before ("sha256:HEX"), "" for the first.
        kind: `transition`, `removed` (a model), `desired` (a state was accepted), `root` (another
            root of trust holds), `key` (this key signs from now on).
        ts: Milliseconds since 1970, by the device's clock.
        clock: What that clock was worth: `plausible`, `behind` or `ahead`.
        actor: On whose word: `desired` (generation and signers say whose), `local` (a command on
            the device), `cmd` (a person over `in/cmd`), `agent` (nobody's).
        generation, signers: The desired state that is followed, and the deploy keys that signed it.
        root_version: Of the root of trust.
        shadow: Whether it happened to the model's challenger, which answers nobody.
        model, phase, digest, version, sequence, variant: What happened to which bundle.
        active: Digest of what answers for the model after it, "" for nothing.
        self_test: Figures of the variant on this device.
        floor: Of the model.
        reason, detail: Of a refusal.
        unchecked: What could not be checked: `expiry`, or "".
        key: Public key in hex, for `key`.
        agent_version: For `key`.
        document: Hash of the desired state's envelope, or of root.json, for `desired` and `root`.
    """

    device: str
    prefix: str
    instance: str
    number: int
    previous: str
    kind: str
    ts: int
    clock: str
    actor: str = ""
    generation: int = 0
    signers: tuple[str, ...] = ()
    root_version: int = 0
    shadow: bool = False
    model: str = ""
    phase: str = ""
    digest: str = ""
    active: str = ""
    version: str = ""
    sequence: int = 0
    variant: str = ""
    self_test: dict[str, float] = field(default_factory=dict)
    floor: int = 0
    reason: str = ""
    detail: str = ""
    unchecked: str = ""
    key: str = ""
    agent_version: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A device's word for a part of its chain that it no longer keeps.

    Attributes:
        device, prefix, instance: Whose it is.
        number, hash: The last event that is not kept, and the hash of its payload.
        ts: Milliseconds since 1970, by the device's clock.
        serving: Model → bundle digest that answered after that event.
        key: Public key in hex that signs.
    """

    device: str
    prefix: str
    instance: str
    number: int
    hash: str
    ts: int
    serving: dict[str, str] = field(default_factory=dict)
    key: str = ""


def payload_hash(payload: bytes) -> str:
    """What the next event names as `previous`."""
    return f"sha256:{hashlib.sha256(payload).hexdigest()}"


def serving_after(serving: Mapping[str, str], events: Iterable[AuditEvent]) -> dict[str, str]:
    """Model → digest of what answers after these events, given what answered before them."""
    now = dict(serving)
    for event in events:
        if event.shadow:
            continue
        if event.active:
            now[event.model] = event.active
        elif event.model:
            now.pop(event.model, None)
    return now


def place_of(instance: str, number: int) -> str:
    """The last level of an event's topic; the next but `PLACES` takes its place."""
    return f"{instance[:8]}-{number % PLACES}"


def render_event(event: AuditEvent) -> bytes:
    """The canonical payload to sign; what is empty is left out.

    Raises:
        WireError: It breaks a rule of the format.
    """
    finite = {name: value for name, value in event.self_test.items() if math.isfinite(value)}
    event = replace(event, self_test=finite)
    _check_event(event)
    return _render(event)


def parse_event(payload: bytes) -> AuditEvent:
    """Parse a payload.

    Raises:
        WireError: It is not a valid event.
    """
    try:
        value = parse(payload, what="event", max_bytes=MAX_EVENT_BYTES)
        event = decode(AuditEvent, value, what="event", ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    _check_event(event)
    return event


def render_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The canonical payload to sign.

    Raises:
        WireError: It breaks a rule of the format.
    """
    _check_checkpoint(checkpoint)
    return _render(checkpoint)


def parse_checkpoint(payload: bytes) -> Checkpoint:
    """Parse a payload.

    Raises:
        WireError: It is not a valid checkpoint.
    """
    try:
        value = parse(payload, what="checkpoint", max_bytes=MAX_EVENT_BYTES)
        checkpoint = decode(Checkpoint, value, what="checkpoint", ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    _check_checkpoint(checkpoint)
    return checkpoint


def _render(document: AuditEvent | Checkpoint) -> bytes:
    value = encode(document)
    assert isinstance(value, dict)
    needed = {"device", "prefix", "instance", "number", "previous", "hash", "kind", "ts", "clock"}
    payload = render({k: v for k, v in value.items() if k in needed or v not in ("", 0, [], {})})
    if len(payload) > MAX_EVENT_BYTES:
        raise WireError(f"event must be at most {MAX_EVENT_BYTES} bytes, got {len(payload)}")
    return payload


def _check_event(event: AuditEvent) -> None:
    _check_whose(event)
    if event.number == 1 and event.previous:
        raise WireError("event 1 must have nothing before it")
    if event.number > 1 and not _HASH.fullmatch(event.previous):
        raise WireError(f"event: previous must be sha256:HEX, got {event.previous[:80]!r}")


def _check_checkpoint(checkpoint: Checkpoint) -> None:
    _check_whose(checkpoint)
    if not _HASH.fullmatch(checkpoint.hash):
        raise WireError(f"checkpoint: hash must be sha256:HEX, got {checkpoint.hash[:80]!r}")


def _check_whose(document: AuditEvent | Checkpoint) -> None:
    check_prefix(document.prefix)
    check_id(document.device, what="device id")
    check_id(document.instance, what="instance")
    if document.number < 1:
        raise WireError(f"event: number must be >= 1, got {document.number}")
