"""Envelopes: what counts as a signature, and how often."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.trust import DocumentError, PrivateKey, SignatureError, dsse

TYPE = "application/vnd.test+json"
KEYS = [PrivateKey(bytes([n]) * 32) for n in range(4)]
ALICE, BOB, CAROL, STRANGER = KEYS
TRUSTED = {key.public.key_id: key.public for key in (ALICE, BOB, CAROL)}


def edited(envelope: bytes, **changes) -> bytes:
    return json.dumps({**json.loads(envelope), **changes}).encode()


def test_the_encoding_is_the_specifications():
    """The example of DSSE's protocol.md comes out."""
    assert (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        == dsse.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    )


def test_the_length_of_a_type_is_counted_in_bytes():
    """Characters outside ASCII count as what they are on the wire."""
    assert b"DSSEv1 2 \xc3\xa9 1 x" == dsse.pre_authentication_encoding("é", b"x")


@given(st.binary(max_size=2000), st.sets(st.sampled_from([0, 1, 2]), min_size=1))
def test_what_enough_keys_signed_is_given_back(payload, signers):
    """Any payload and any signers: the threshold that they reach is met, the next is not."""
    envelope = dsse.sign(payload, TYPE, [KEYS[n] for n in signers])

    assert payload == dsse.verify(envelope, TYPE, TRUSTED, len(signers))
    with pytest.raises(SignatureError):
        dsse.verify(envelope, TYPE, TRUSTED, len(signers) + 1)


def test_the_same_payload_and_keys_give_the_same_bytes():
    """Neither the order of the keys nor a key given twice changes the envelope."""
    assert dsse.sign(b"x", TYPE, [ALICE, BOB]) == dsse.sign(b"x", TYPE, [BOB, ALICE, ALICE])


def test_a_signature_added_later_counts_like_one_made_at_once():
    """Two people at two places reach a threshold of two."""
    first = dsse.sign(b"x", TYPE, [BOB])

    assert dsse.sign(b"x", TYPE, [ALICE, BOB]) == dsse.add_signatures(first, TYPE, [ALICE])


def test_a_key_counts_once():
    """The same signature listed twice, with and without its key id, is one."""
    envelope = dsse.sign(b"x", TYPE, [ALICE])
    (signature,) = json.loads(envelope)["signatures"]
    twice = edited(envelope, signatures=[signature, signature, {"sig": signature["sig"]}])

    assert b"x" == dsse.verify(twice, TYPE, TRUSTED, 1)
    with pytest.raises(SignatureError, match="signed by 2 of the trusted keys"):
        dsse.verify(twice, TYPE, TRUSTED, 2)


def test_the_key_id_is_only_a_hint():
    """A signature without one counts; one under another's id does not."""
    envelope = dsse.sign(b"x", TYPE, [ALICE])
    (signature,) = json.loads(envelope)["signatures"]

    assert b"x" == dsse.verify(
        edited(envelope, signatures=[{"sig": signature["sig"]}]), TYPE, TRUSTED, 1
    )
    with pytest.raises(SignatureError):
        dsse.verify(
            edited(envelope, signatures=[{**signature, "keyid": BOB.public.key_id}]),
            TYPE,
            TRUSTED,
            1,
        )


def test_a_stranger_does_not_count():
    """The error names who signed and who should have."""
    envelope = dsse.sign(b"x", TYPE, [STRANGER])

    with pytest.raises(SignatureError, match=STRANGER.public.key_id[:12]) as caught:
        dsse.verify(envelope, TYPE, TRUSTED, 1)

    assert ALICE.public.key_id[:12] in str(caught.value)


def test_a_key_id_cannot_write_on_the_terminal():
    """What a stranger calls its key is shown escaped."""
    envelope = dsse.sign(b"x", TYPE, [STRANGER])
    (signature,) = json.loads(envelope)["signatures"]
    named = edited(envelope, signatures=[{**signature, "keyid": "\x1b[2J\nall is well"}])

    with pytest.raises(SignatureError) as caught:
        dsse.verify(named, TYPE, TRUSTED, 1)

    assert str(caught.value).isprintable()


def test_a_stranger_beside_a_trusted_key_does_no_harm():
    """Signatures that do not count are passed over."""
    assert b"x" == dsse.verify(dsse.sign(b"x", TYPE, [STRANGER, BOB]), TYPE, TRUSTED, 1)


def test_another_payload_under_the_same_signature_is_refused():
    """The error says that a trusted key's signature does not fit."""
    envelope = dsse.sign(b"x", TYPE, [ALICE])
    forged = edited(envelope, payload=base64.b64encode(b"y").decode())

    with pytest.raises(SignatureError, match="does not fit what it signs"):
        dsse.verify(forged, TYPE, TRUSTED, 1)


def test_a_signature_holds_for_its_type_only():
    """An envelope of another type is refused, and so is one that is relabelled."""
    envelope = dsse.sign(b"x", "application/other", [ALICE])

    with pytest.raises(SignatureError, match="payloadType"):
        dsse.verify(envelope, TYPE, TRUSTED, 1)
    with pytest.raises(SignatureError, match="does not fit"):
        dsse.verify(edited(envelope, payloadType=TYPE), TYPE, TRUSTED, 1)


def test_an_unverified_payload_needs_no_key():
    """What is only shown may be shown unverified."""
    assert b"x" == dsse.unverified_payload(dsse.sign(b"x", TYPE, [STRANGER]), TYPE)


GOOD = dsse.sign(b"x", TYPE, [ALICE])


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"not JSON",
        b"x" * (dsse.MAX_ENVELOPE_BYTES + 1),
        b"[" * 1000,
        edited(GOOD, payload=None),
        edited(GOOD, payload=7),
        edited(GOOD, payload="eA"),
        edited(GOOD, payload="eB=="),  # the same byte, but not its canonical spelling
        edited(GOOD, payload="e A=="),
        edited(GOOD, payload="é"),
        edited(GOOD, signatures=[]),
        edited(GOOD, signatures={}),
        edited(GOOD, signatures=["x"]),
        edited(GOOD, signatures=[{"keyid": "a"}]),
        edited(GOOD, signatures=[{"keyid": 3, "sig": "eA=="}]),
        edited(GOOD, signatures=json.loads(GOOD)["signatures"] * 17),
    ],
)
def test_a_malformed_envelope_is_refused(broken):
    """Verifying says that it is not signed, reading says that it is no envelope."""
    with pytest.raises(SignatureError) as caught:
        dsse.verify(broken, TYPE, TRUSTED, 1)
    with pytest.raises(DocumentError):
        dsse.unverified_payload(broken, TYPE)

    assert "\n" not in str(caught.value)


@given(st.data())
def test_no_change_of_an_envelope_gives_another_payload(data):
    """Whatever is flipped, cut out or put in: the signed payload, or SignatureError."""
    envelope = dsse.sign(b"the payload", TYPE, [ALICE])
    start = data.draw(st.integers(0, len(envelope)))
    end = data.draw(st.integers(start, min(len(envelope), start + 3)))
    changed = envelope[:start] + data.draw(st.binary(max_size=3)) + envelope[end:]

    with contextlib.suppress(SignatureError):
        assert b"the payload" == dsse.verify(changed, TYPE, TRUSTED, 1)


def test_a_threshold_of_nothing_is_a_defect():
    """Nobody can ask for fewer than one signature."""
    with pytest.raises(ValueError, match="at least 1"):
        dsse.verify(GOOD, TYPE, TRUSTED, 0)


def test_an_envelope_without_signatures_cannot_be_made():
    """Signing with no key is a defect of the caller."""
    with pytest.raises(ValueError, match="1 to 16 signatures, got 0"):
        dsse.sign(b"x", TYPE, [])
