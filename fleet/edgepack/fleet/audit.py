"""Proving a device's signed history: what ran where and when, and that nothing of it is missing.

Pure: lines of signed events in, a proof out. Reading them from a broker is `audit_broker`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgepack.fleet.errors import AuditError
from edgepack.trust import (
    CHECKPOINT_PAYLOAD_TYPE,
    DEPLOY,
    EVENT_PAYLOAD_TYPE,
    PublicKey,
    Root,
    dsse,
)
from edgepack.trust.errors import DocumentError
from edgepack.wire.audit import (
    AuditEvent,
    Checkpoint,
    parse_checkpoint,
    parse_event,
    payload_hash,
)
from edgepack.wire.errors import WireError

MAX_LINES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a history.

    Attributes:
        kind: `removed`, `altered`, `reordered`, `forged`, `foreign`, `fork` or `actor`.
        detail: One line.
    """

    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a history proves.

    Attributes:
        device: Whose it is.
        keys: Public keys in hex that signed it.
        pinned: Whether the caller named them; else they are the history's own word.
        events: The events whose signatures hold, by installation and number.
        findings: What is wrong; nothing, if the history holds.
        notes: What it does not show.
    """

    device: str
    keys: tuple[str, ...]
    pinned: bool
    events: tuple[AuditEvent, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def raise_findings(self) -> None:
        """Turn findings into the error that they are.

        Raises:
            AuditError: There are some.
        """
        if self.findings:
            first, more = self.findings[0], len(self.findings) - 1
            rest = f" (and {more} more)" if more else ""
            raise AuditError(f"history of {self.device}: {first.kind}: {first.detail}{rest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a history must be.

    Attributes:
        keys: The device's public keys; none takes those that the history itself names.
        claimed: A public key in hex that somebody names, not better than the history's own; or "".
        device, prefix: Whose it must be; None takes the first event's.
        roots: Roots of trust by version, to compare deploy keys with.
        from_start: Whether events before the first, or a checkpoint in their place, must be there.
    """

    keys: tuple[PublicKey, ...] = ()
    claimed: str = ""
    device: str | None = None
    prefix: str | None = None
    roots: Mapping[int, Root] = field(default_factory=dict)
    from_start: bool = True


@dataclass(frozen=True, slots=True)
class _Line:
    where: str
    payload: bytes
    document: AuditEvent | Checkpoint
    envelope: dsse.Envelope


def prove(files: Mapping[str, Sequence[bytes]], expected: Expected) -> Proof:
    """Check a history.

    Args:
        files: Name → its lines, each a signed event or checkpoint. Several files of one device are
            read as one history: what an earlier one holds must be in the later one as it was.
        expected: What it must be.

    Raises:
        AuditError: There is nothing to check, or no key to check it with.
    """
    findings: list[Finding] = []
    lines = [line for name, found in files.items() for line in _lines(name, found, findings)]
    if not lines:
        first = f": {findings[0].detail}" if findings else ""
        raise AuditError(f"the history has no event{first}")
    keys = _keys(lines, expected)
    device, prefix = _whose(lines, expected)
    good: list[_Line] = []
    bad: set[tuple[str, int]] = set()
    for line in lines:
        finding = _signed(line, keys) or _ours(line, device, prefix)
        if finding is None:
            good.append(line)
        else:
            findings.append(finding)
            bad.add((line.document.instance, line.document.number))
    findings += _order(good)
    instances = list(dict.fromkeys(line.document.instance for line in good))
    events: list[AuditEvent] = []
    notes: list[str] = []
    for instance in instances:
        chain = _Chain(
            [line for line in good if line.document.instance == instance],
            {number for of, number in bad if of == instance},
        )
        findings += chain.findings(from_start=expected.from_start)
        notes += chain.notes(from_start=expected.from_start)
        events += chain.events
    if len(instances) > 1:
        notes.append(f"{len(instances)} installations: the device was installed anew")
    findings += _actors(events, expected.roots)
    return Proof(
        device=device,
        keys=tuple(sorted(key.raw.hex() for key in keys.values())),
        pinned=bool(expected.keys),
        events=tuple(events),
        findings=tuple(findings),
        notes=tuple(notes),
    )


class _Chain:
    """The good lines of one installation."""

    def __init__(self, lines: list[_Line], bad: set[int]) -> None:
        self._bad = bad
        self._payloads: dict[int, bytes] = {}
        self._events: dict[int, AuditEvent] = {}
        self._forks: list[Finding] = []
        self._checkpoints: dict[int, str] = {}
        for line in lines:
            document = line.document
            if isinstance(document, Checkpoint):
                self._checkpoints[document.number] = document.hash
            elif self._payloads.setdefault(document.number, line.payload) != line.payload:
                detail = (
                    f"{line.where}: the device signed two different events {document.number} "
                    "(its state folder was restored from a copy?)"
                )
                self._forks.append(Finding(kind="fork", detail=detail))
            else:
                self._events[document.number] = document

    @property
    def events(self) -> list[AuditEvent]:
        return [self._events[number] for number in sorted(self._events)]

    def findings(self, *, from_start: bool) -> list[Finding]:
        found = list(self._forks)
        numbers = sorted(self._events)
        if numbers and from_start:
            found += self._beginning(numbers[0])
        for before, number in itertools.pairwise(numbers):
            if number != before + 1:
                found += self._missing(before + 1, number - 1)
            elif self._events[number].previous != payload_hash(self._payloads[before]):
                detail = (
                    f"event {number} does not follow event {before}, though the device signed both "
                    "(its state folder was restored from a copy?)"
                )
                found.append(Finding(kind="fork", detail=detail))
        return found + self._against_checkpoints(numbers)

    def notes(self, *, from_start: bool) -> list[str]:
        numbers = sorted(self._events)
        if numbers and numbers[0] > 1 and (not from_start or numbers[0] - 1 in self._checkpoints):
            return [f"begins with event {numbers[0]}: earlier ones are not here"]
        return []

    def _beginning(self, first: int) -> list[Finding]:
        if first == 1:
            return []
        vouched = self._checkpoints.get(first - 1)
        if vouched is None:
            return self._missing(1, first - 1)
        if vouched != self._events[first].previous:
            detail = f"event {first} does not follow the checkpoint of event {first - 1}"
            return [Finding(kind="fork", detail=detail)]
        return []

    def _against_checkpoints(self, numbers: list[int]) -> list[Finding]:
        found = []
        last = numbers[-1] if numbers else 0
        for number, vouched in sorted(self._checkpoints.items()):
            payload = self._payloads.get(number)
            if payload is not None and payload_hash(payload) != vouched:
                detail = f"event {number} is not the one that the device's checkpoint vouches for"
                found.append(Finding(kind="fork", detail=detail))
            if number > last:
                found += self._missing(last + 1, number)
        return found

    def _missing(self, first: int, last: int) -> list[Finding]:
        told = sum(first <= number <= last for number in self._bad)
        if told > last - first:
            return []  # what stands there was found wrong already
        what = f"event {first} is" if first == last else f"events {first} to {last} are"
        return [Finding(kind="removed", detail=f"{what} missing")]


def _lines(name: str, found: Sequence[bytes], findings: list[Finding]) -> Iterator[_Line]:
    for index, data in enumerate(found[:MAX_LINES], 1):
        where = f"{name}, line {index}"
        try:
            yield _line(where, data)
        except (DocumentError, WireError) as exc:
            findings.append(Finding(kind="altered", detail=f"{where}: {exc}"))
    if len(found) > MAX_LINES:
        raise AuditError(f"{name} must have at most {MAX_LINES} lines, got {len(found)}")


def _line(where: str, data: bytes) -> _Line:
    if CHECKPOINT_PAYLOAD_TYPE.encode() in data:
        envelope = dsse.parse(data, CHECKPOINT_PAYLOAD_TYPE)
        return _Line(where, envelope.payload, parse_checkpoint(envelope.payload), envelope)
    envelope = dsse.parse(data, EVENT_PAYLOAD_TYPE)
    return _Line(where, envelope.payload, parse_event(envelope.payload), envelope)


def _keys(lines: list[_Line], expected: Expected) -> dict[str, PublicKey]:
    keys = list(expected.keys)
    if not keys:
        named = {line.document.key for line in lines} | {expected.claimed}
        keys = [_public(text) for text in sorted(named - {""})]
    if not keys:
        raise AuditError(
            "the history names no key of the device",
            hint="--key takes what `edgepack-agent audit --key` prints, or `key` of out/info",
        )
    return {key.key_id: key for key in keys}


def _public(text: str) -> PublicKey:
    try:
        return PublicKey(bytes.fromhex(text))
    except ValueError as exc:
        raise AuditError(f"a device's key must be 32 bytes in hex, got {text[:80]!r}") from exc


def _whose(lines: list[_Line], expected: Expected) -> tuple[str, str]:
    first = lines[0].document
    return expected.device or first.device, expected.prefix or first.prefix


def _signed(line: _Line, keys: Mapping[str, PublicKey]) -> Finding | None:
    if dsse.signers(line.envelope, keys):
        return None
    claimed = {signature.key_id or "" for signature in line.envelope.signatures}
    number = line.document.number
    if claimed & keys.keys():
        detail = f"{line.where}: event {number} is not what the device signed"
        return Finding(kind="altered", detail=detail)
    detail = (
        f"{line.where}: event {number} is signed by {dsse.shown_keys(claimed)}, not by the "
        f"device's key {dsse.shown_keys(keys)}"
    )
    return Finding(kind="forged", detail=detail)


def _ours(line: _Line, device: str, prefix: str) -> Finding | None:
    document = line.document
    if (document.prefix, document.device) == (prefix, device):
        return None
    detail = (
        f"{line.where}: event {document.number} is of {document.prefix}/{document.device}, "
        f"not of {prefix}/{device}"
    )
    return Finding(kind="foreign", detail=detail)


def _order(lines: list[_Line]) -> list[Finding]:
    found = []
    last: dict[tuple[str, str], int] = {}
    for line in lines:
        if isinstance(line.document, Checkpoint):
            continue
        where = (line.where.rpartition(", line")[0], line.document.instance)
        number = line.document.number
        if number <= last.get(where, 0):
            detail = f"{line.where}: event {number} stands after event {last[where]}"
            found.append(Finding(kind="reordered", detail=detail))
        last[where] = number
    return found


def _actors(events: Sequence[AuditEvent], roots: Mapping[int, Root]) -> list[Finding]:
    found = []
    for event in events:
        root = roots.get(event.root_version)
        if root is None or event.actor != "desired":
            continue
        strangers = set(event.signers) - set(root.roles[DEPLOY].keys)
        if strangers or not event.signers:
            detail = (
                f"event {event.number} acts on the word of {dsse.shown_keys(strangers)}, which "
                f"root.json version {root.version} does not let deploy"
            )
            found.append(Finding(kind="actor", detail=detail))
    return found
