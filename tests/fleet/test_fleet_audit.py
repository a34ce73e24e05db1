"""Proving a device's signed history: whatever is done to it is found, and said in one line."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.fleet.audit import Expected, prove
from edgepack.fleet.errors import AuditError
from edgepack.trust import (
    CHECKPOINT_PAYLOAD_TYPE,
    DEPLOY,
    EVENT_PAYLOAD_TYPE,
    RELEASE,
    ROOT,
    PrivateKey,
    Role,
    Root,
    dsse,
    sign_root,
)
from edgepack.wire.audit import (
    AuditEvent,
    Checkpoint,
    parse_event,
    payload_hash,
    render_checkpoint,
    render_event,
)

DEVICE_KEY, OTHER_KEY, DEPLOY_KEY = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
KEY = DEVICE_KEY.public
PINNED = Expected(keys=(KEY,))
FIRST = AuditEvent(
    device="press-7",
    prefix="edgepack/v1",
    instance="6f1c0a52b7d94e83",
    number=1,
    previous="",
    kind="key",
    ts=1,
    clock="plausible",
    key=KEY.raw.hex(),
)
PHASES = ("fetching", "verifying", "staging", "testing", "switching", "probation", "confirmed")


def history(count=8, *, first=FIRST, key=DEVICE_KEY, **fields):
    """A chain of signed events."""
    lines, event = [], first
    for number in range(1, count + 1):
        payload = render_event(event)
        lines.append(dsse.sign(payload, EVENT_PAYLOAD_TYPE, [key]))
        event = replace(
            FIRST,
            instance=first.instance,
            device=first.device,
            number=number + 1,
            previous=payload_hash(payload),
            kind="transition",
            key="",
            actor="desired",
            model="digits",
            phase=PHASES[number % len(PHASES)],
            **fields,
        )
    return lines


def checkpoint(lines, number):
    payload = dsse.unverified_payload(lines[number - 1], EVENT_PAYLOAD_TYPE)
    statement = Checkpoint(
        device=FIRST.device,
        prefix=FIRST.prefix,
        instance=FIRST.instance,
        number=number,
        hash=payload_hash(payload),
        ts=1,
    )
    return dsse.sign(render_checkpoint(statement), CHECKPOINT_PAYLOAD_TYPE, [DEVICE_KEY])


def found(lines, expected=PINNED, **more):
    proof = prove({"a": lines, **more}, expected)
    return [(finding.kind, finding.detail) for finding in proof.findings]


def kinds(*arguments, **options):
    return {kind for kind, _ in found(*arguments, **options)}


def test_a_whole_history_holds():
    """Every event is there, in order, signed; the events come out for reading."""
    proof = prove({"a": history()}, PINNED)
    assert ((), (), True) == (proof.findings, proof.notes, proof.pinned)
    assert list(range(1, 9)) == [event.number for event in proof.events]
    proof.raise_findings()


def test_an_unpinned_history_is_taken_at_its_word_and_says_so():
    """Without --key, the key that the history names is used, and the proof says that."""
    proof = prove({"a": history()}, Expected())
    assert ((), False, (KEY.raw.hex(),)) == (proof.findings, proof.pinned, proof.keys)
    with pytest.raises(AuditError, match="names no key"):
        prove({"a": history()[1:]}, Expected())
    later = prove({"a": history()[1:]}, Expected(claimed=KEY.raw.hex(), from_start=False))
    assert ((), False) == (later.findings, later.pinned)


def test_a_removed_event_is_found_wherever_it_was():
    """In the middle, at the beginning, and before a checkpoint that vouches for it."""
    lines = history()
    assert [("removed", "event 4 is missing")] == found(lines[:3] + lines[4:])
    assert [("removed", "events 1 to 2 are missing")] == found(lines[2:])
    assert [("removed", "events 7 to 8 are missing")] == found([*lines[:6], checkpoint(lines, 8)])


def test_a_checkpoint_stands_for_what_the_device_no_longer_keeps():
    """A history that begins with a checkpoint holds; one that does not follow it does not."""
    lines = history()
    proof = prove({"a": [checkpoint(lines, 3), *lines[3:]]}, PINNED)
    assert ((), ("begins with event 4: earlier ones are not here",)) == (
        proof.findings,
        proof.notes,
    )
    other = history(detail="another past")
    assert {"fork"} == kinds([checkpoint(other, 3), *lines[3:]])


def test_what_a_broker_no_longer_has_is_a_note():
    """The ring on the broker holds the last events only."""
    proof = prove({"b": history()[3:]}, replace(PINNED, from_start=False))
    assert ((), ("begins with event 4: earlier ones are not here",)) == (
        proof.findings,
        proof.notes,
    )


def test_an_altered_event_is_found():
    """A payload that the signature does not fit, whatever the broker made of it."""
    lines = history()
    payload = dsse.unverified_payload(lines[3], EVENT_PAYLOAD_TYPE)
    changed = render_event(replace(parse_event(payload), digest="sha256:" + "0" * 64))
    signature = dsse.parse(lines[3], EVENT_PAYLOAD_TYPE).signatures[0]
    forged = dsse.sign(changed, EVENT_PAYLOAD_TYPE, [OTHER_KEY])
    stranger = dsse.parse(forged, EVENT_PAYLOAD_TYPE).signatures[0]
    for old, new in ((stranger.signature, signature.signature), (None, None)):
        line = forged
        if old is not None:
            line = line.replace(base64.b64encode(old), base64.b64encode(new))
            line = line.replace(stranger.key_id.encode(), signature.key_id.encode())
            expected = ("altered", "a, line 4: event 4 is not what the device signed")
            assert [expected] == found([*lines[:3], line, *lines[4:]])
        else:
            ((kind, detail),) = found([*lines[:3], line, *lines[4:]])
            assert "forged" == kind
            assert "not by the device's key" in detail


def test_a_reordered_history_is_found():
    """Two events that changed places, and one that stands twice."""
    lines = history()
    swapped = [*lines[:3], lines[4], lines[3], *lines[5:]]
    assert [("reordered", "a, line 5: event 4 stands after event 5")] == found(swapped)
    assert {"reordered"} == kinds([*lines, lines[-1]])


def test_another_devices_events_are_foreign():
    """Also when they are signed by the same key, as after cloning a disk."""
    lines = history(first=replace(FIRST, device="press-8"))
    assert {"foreign"} == kinds(lines, replace(PINNED, device="press-7"))
    assert {"foreign"} == kinds(history() + history(first=replace(FIRST, device="press-8")))


def test_a_forged_history_does_not_pass_a_pinned_key():
    """Somebody with a key of their own can make a whole history; not this device's."""
    forged = history(key=OTHER_KEY, first=replace(FIRST, key=OTHER_KEY.public.raw.hex()))
    assert {"forged"} == kinds(forged)
    assert set() == kinds(forged, Expected())


def test_a_restored_state_folder_is_a_fork():
    """A device that went back to a copy of its state signs the same number twice."""
    lines = history()
    again = history(detail="after the restore")
    one = [*lines[:8]]
    other = [*lines[:3], *again[3:5]]  # the broker's ring: 4 and 5 are overwritten, the rest is not
    assert {"fork"} == kinds([*lines[:1], *again[1:3], *lines[3:]])
    assert "restored from a copy" in found([*lines[:1], *again[1:3], *lines[3:]])[0][1]
    assert "fork" in kinds(one, b=other)


def test_several_files_are_one_history():
    """An earlier export and a later one fit together."""
    lines = history()
    assert set() == kinds(lines[:5], b=[checkpoint(lines, 2), *lines[2:]])


def test_who_said_so_must_have_been_allowed_to():
    """With the roots of trust, the deploy keys of every event are compared with the role."""
    signer = DEPLOY_KEY.public
    role = Role(keys=(signer.key_id,))
    root = Root.parse(
        sign_root(
            version=1,
            keys=[signer],
            roles=dict.fromkeys((ROOT, RELEASE, DEPLOY), role),
            signers=[DEPLOY_KEY],
        )
    )
    expected = replace(PINNED, roots={1: root})
    assert set() == kinds(history(root_version=1, signers=(signer.key_id,)), expected)
    assert {"actor"} == kinds(history(root_version=1, signers=("ab" * 32,)), expected)
    assert set() == kinds(history(root_version=2, signers=("ab" * 32,)), expected)


def test_installations_are_told_apart():
    """A device that was installed anew begins again with 1, and that is said."""
    second = history(first=replace(FIRST, instance="00ff"))
    proof = prove({"a": history() + second}, PINNED)
    assert ((), ("2 installations: the device was installed anew",)) == (
        proof.findings,
        proof.notes,
    )


def test_numbers_as_large_as_can_be_cost_nothing():
    """A gap of 2**60 events is told in one line."""
    far = replace(FIRST, number=2**60, previous="sha256:" + "0" * 64, kind="transition")
    line = dsse.sign(render_event(far), EVENT_PAYLOAD_TYPE, [DEVICE_KEY])
    assert [("removed", f"events 9 to {2**60 - 1} are missing")] == found([*history(), line])


LINES = history(6)


@settings(max_examples=300)  # the stated number of mutated histories
@given(st.data())
def test_no_change_of_a_history_goes_unnoticed(data):
    """Whatever byte of whatever line is changed: a finding, or the very same events."""
    lines = list(LINES)
    index = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[index])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255))
    lines[index] = bytes(line)
    proof = prove({"a": lines}, PINNED)
    same = prove({"a": LINES}, PINNED).events == proof.events
    assert bool(proof.findings) or same


@settings(max_examples=200)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_no_selection_of_a_history_passes_for_the_whole(order):
    """Only a beginning of it, in order, holds: an end that is withheld cannot be seen."""
    proof_holds = order == list(range(len(order)))
    if not order:
        with pytest.raises(AuditError, match="has no event"):
            prove({"a": []}, PINNED)
        return
    assert proof_holds == (not found([LINES[i] for i in order]))


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_whatever_the_lines_the_answer_is_a_proof_or_the_one_error(lines):
    """Rubbish is a finding or an error, nothing else."""
    try:
        proof = prove({"a": [*lines, *LINES[:1]]}, PINNED)
    except AuditError:
        return
    assert len(lines) == len(proof.findings)
