"""Signatures: who signed what, how often, and that signing leaves the bundle what it was."""

import json
import time

import pytest
from bundle_factory import (
    OTHER_KEY,
    RELEASE_KEY,
    STRANGER,
    THIRD_KEY,
    Crafted,
    small_root,
    write_small,
)

from edgepack.bundle import (
    BundleError,
    Statement,
    digest_of,
    open_bundle,
    sign_bundle,
    signing_sequence,
    verify_bundle,
)
from edgepack.bundle.errors import (
    BundleLimitError,
    ForeignSignatureError,
    StatementMismatchError,
    UnsignedError,
    UntrustedBundleError,
    WrongKeyError,
)
from edgepack.bundle.statement import MAX_SEQUENCE, render_statement
from edgepack.trust import STATEMENT_PAYLOAD_TYPE, TrustError, dsse


@pytest.fixture
def path(tmp_path):
    """An unsigned bundle."""
    return write_small(tmp_path / "a.edgepack")


def envelope(statement: Statement | bytes, *keys) -> bytes:
    payload = statement if isinstance(statement, bytes) else render_statement(statement)
    return dsse.sign(payload, STATEMENT_PAYLOAD_TYPE, keys or [RELEASE_KEY])


DIGEST = digest_of(Crafted().manifest)
STATEMENT = Statement(name="pump", version="1.2.3", sequence=7, digest=DIGEST)


def refused(bundle, root) -> UntrustedBundleError:
    with pytest.raises(UntrustedBundleError) as caught:
        verify_bundle(bundle, root)
    assert isinstance(caught.value, TrustError)
    assert isinstance(caught.value, BundleError)
    assert 5 == caught.value.exit_code
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_signed_bundle_is_verified(path):
    """What was signed is given back."""
    sign_bundle(path, RELEASE_KEY, sequence=7)

    bundle = open_bundle(path)

    assert Statement(
        name="pump", version="1.2.3", sequence=7, digest=bundle.digest
    ) == verify_bundle(bundle, small_root())


def test_signing_does_not_change_the_digest(path):
    """The identity of a bundle is its content, whoever signs it and however often."""
    before = open_bundle(path)

    for sequence, key in enumerate((RELEASE_KEY, OTHER_KEY, RELEASE_KEY)):
        sign_bundle(path, key, sequence=sequence)

    after = open_bundle(path)
    assert before.digest == after.digest
    assert before.manifest == after.manifest
    assert 3 == len(after.signatures)
    assert path.stat().st_size == after.size_bytes


def test_signing_twice_gives_identical_bytes(path, tmp_path):
    """The same key and sequence change nothing the second time, and the same file elsewhere."""
    sign_bundle(path, RELEASE_KEY, sequence=7)
    once = path.read_bytes()
    inode = path.stat().st_ino
    again = write_small(tmp_path / "again.edgepack")

    sign_bundle(path, RELEASE_KEY, sequence=7)
    sign_bundle(again, RELEASE_KEY, sequence=7)

    assert once == path.read_bytes() == again.read_bytes()
    assert inode == path.stat().st_ino  # not even written again


def test_the_order_of_signing_does_not_matter(path, tmp_path):
    """Two signers give the same file, whoever was first."""
    other = write_small(tmp_path / "other.edgepack")
    for key in (RELEASE_KEY, OTHER_KEY):
        sign_bundle(path, key, sequence=7)
    for key in (OTHER_KEY, RELEASE_KEY):
        sign_bundle(other, key, sequence=7)

    assert path.read_bytes() == other.read_bytes()


def test_what_is_signed_is_an_in_toto_statement(path):
    """The payload is a Statement v1 whose only subject is the bundle digest."""
    sign_bundle(path, RELEASE_KEY, sequence=7)
    bundle = open_bundle(path)

    data = bundle.read_blob(bundle.signatures[0].envelope.digest)

    assert {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "pump", "digest": {"sha256": bundle.digest[7:]}}],
        "predicateType": "urn:edgepack:release:v1",
        "predicate": {"name": "pump", "version": "1.2.3", "sequence": 7},
    } == json.loads(dsse.unverified_payload(data, "application/vnd.in-toto+json"))


def test_an_unsigned_bundle_is_refused(path):
    """It opens, but nothing vouches for it."""
    error = refused(open_bundle(path), small_root())

    assert (UnsignedError, "unsigned") == (type(error), error.reason)


def test_a_wrong_key_is_refused(path):
    """The error names who signed and who should have."""
    sign_bundle(path, STRANGER, sequence=7)

    error = refused(open_bundle(path), small_root())

    assert (WrongKeyError, "wrong_key") == (type(error), error.reason)
    assert STRANGER.public.key_id[:12] in str(error)
    assert RELEASE_KEY.public.key_id[:12] in str(error)


def test_a_signature_of_another_bundle_is_refused(path, tmp_path):
    """A good signature carried over to another bundle is told as what it is."""
    other = write_small(tmp_path / "other.edgepack", version="1.2.4")
    sign_bundle(other, RELEASE_KEY, sequence=7)
    foreign = open_bundle(other)
    carried = foreign.read_blob(foreign.signatures[0].envelope.digest)
    Crafted(envelopes=[carried]).write(path)

    error = refused(open_bundle(path), small_root())

    assert (ForeignSignatureError, "foreign_signature") == (type(error), error.reason)
    assert foreign.digest in str(error)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            Statement(name="fan", version="1.2.3", sequence=7, digest=DIGEST),
            "is for fan 1.2.3, the contract says pump 1.2.3",
        ),
        (Statement(name="pump", version="2.0.0", sequence=7, digest=DIGEST), "is for pump 2.0.0"),
        (b"{}", "statement must be https://in-toto.io/Statement/v1"),
        (b"not JSON", "statement is not valid JSON"),
        (b"[" * 50, "nested at most"),
        (render_statement(STATEMENT).replace(b"release:v1", b"release:v2"), "statement must be"),
        (render_statement(STATEMENT).replace(b'"sequence":7', b'"sequence":-7'), "sequence"),
        (render_statement(STATEMENT).replace(b'"sequence":7', b'"sequence":true'), "sequence"),
        (render_statement(STATEMENT).replace(b'"sequence":7', b'"sequence":7.0'), "sequence"),
        (render_statement(STATEMENT).replace(b'"subject":[', b'"subject":[{},'), "subject must be"),
        (render_statement(STATEMENT).replace(b'"sha256":"', b'"sha256":"0'), "subject must be"),
        (render_statement(STATEMENT).replace(b'"1.2.3"', b'"1.2"'), "version must be SemVer"),
        (render_statement(STATEMENT).replace(b'"pump"', b'"pump "'), "name must be"),
    ],
)
def test_a_statement_that_does_not_fit_is_refused(path, statement, message):
    """Even a trusted key cannot release a bundle under another name, version or kind."""
    Crafted(envelopes=[envelope(statement)]).write(path)

    error = refused(open_bundle(path), small_root())

    assert StatementMismatchError is type(error)
    assert message in str(error)


def test_what_trusted_keys_signed_is_told_before_what_strangers_did(path):
    """Of several refusals the one that helps is shown."""
    wrong = Statement(name="fan", version="1.2.3", sequence=7, digest=DIGEST)
    Crafted(envelopes=[envelope(STATEMENT, STRANGER), envelope(wrong)]).write(path)

    assert StatementMismatchError is type(refused(open_bundle(path), small_root()))


@pytest.mark.parametrize(
    "junk", [b"", b"{ }", b"not JSON", dsse.sign(b"x", "text/plain", [STRANGER])]
)
def test_a_junk_signature_is_passed_over(path, junk):
    """Whoever can add a signature cannot take one away; junk alone is no signature."""
    Crafted(envelopes=[junk, envelope(STATEMENT)]).write(path)
    assert STATEMENT == verify_bundle(open_bundle(path), small_root())

    Crafted(envelopes=[junk]).write(path)
    assert WrongKeyError is type(refused(open_bundle(path), small_root()))


def test_a_key_of_another_role_does_not_release(path):
    """A root whose deploy key signed is not satisfied."""
    sign_bundle(path, RELEASE_KEY, sequence=7)

    assert WrongKeyError is type(refused(open_bundle(path), small_root(keys=[OTHER_KEY])))


def test_a_model_that_the_role_may_not_sign_is_refused(path):
    """Patterns bind release keys to models."""
    sign_bundle(path, RELEASE_KEY, sequence=7)
    bundle = open_bundle(path)

    assert 7 == verify_bundle(bundle, small_root(models=("pu*",))).sequence
    error = refused(bundle, small_root(models=("fan", "valve-*")))
    assert "may sign models fan, valve-*, got 'pump'" in str(error)


TWO = (RELEASE_KEY, OTHER_KEY, THIRD_KEY)


def test_a_threshold_is_reached_over_several_signatures(path):
    """Each signer adds a manifest of its own; those over one statement count together."""
    root = small_root(keys=TWO, threshold=2)

    sign_bundle(path, RELEASE_KEY, sequence=7)
    assert "signed by 2 of" in str(refused(open_bundle(path), root))

    sign_bundle(path, THIRD_KEY, sequence=7)
    assert 7 == verify_bundle(open_bundle(path), root).sequence


def test_a_threshold_is_reached_in_one_envelope(path):
    """One envelope may carry several signatures."""
    root = small_root(keys=TWO, threshold=2)
    Crafted(envelopes=[envelope(STATEMENT, RELEASE_KEY, OTHER_KEY)]).write(path)

    assert STATEMENT == verify_bundle(open_bundle(path), root)


def test_a_key_counts_once_over_all_signatures(path):
    """The same key in several envelopes is still one key."""
    root = small_root(keys=TWO, threshold=2)
    both = envelope(STATEMENT, RELEASE_KEY, STRANGER)
    Crafted(envelopes=[envelope(STATEMENT), both]).write(path)

    assert "got 1 of them" in str(refused(open_bundle(path), root))


def test_different_sequences_are_counted_apart(path):
    """Two keys that signed two statements agree on neither."""
    root = small_root(keys=TWO, threshold=2)
    sign_bundle(path, RELEASE_KEY, sequence=7)
    sign_bundle(path, OTHER_KEY, sequence=8)

    assert WrongKeyError is type(refused(open_bundle(path), root))


def test_the_newest_statement_that_reaches_the_threshold_is_taken(path):
    """A later signature that falls short does not hide an earlier one that does not."""
    root = small_root(keys=TWO, threshold=2)
    for key, sequence in ((RELEASE_KEY, 7), (OTHER_KEY, 7), (RELEASE_KEY, 9)):
        sign_bundle(path, key, sequence=sequence)
    assert 7 == verify_bundle(open_bundle(path), root).sequence

    sign_bundle(path, THIRD_KEY, sequence=9)
    assert 9 == verify_bundle(open_bundle(path), root).sequence


def test_signatures_are_bounded(path):
    """The seventeenth signature is refused and the file stays as it was."""
    for sequence in range(16):
        sign_bundle(path, RELEASE_KEY, sequence=sequence)
    before = path.read_bytes()

    with pytest.raises(BundleLimitError, match="at most 16 signatures"):
        sign_bundle(path, RELEASE_KEY, sequence=16)

    assert before == path.read_bytes()
    assert 15 == verify_bundle(open_bundle(path), small_root()).sequence


def test_more_signatures_than_the_bound_are_not_read(path):
    """A hostile index is refused before its signatures are looked at."""
    Crafted(envelopes=[b"envelope %d" % n for n in range(17)]).write(path)

    with pytest.raises(BundleError, match="at most 16 signatures, got 17"):
        open_bundle(path)


@pytest.mark.parametrize("sequence", [-1, MAX_SEQUENCE + 1])
def test_a_sequence_is_seconds(path, sequence):
    """Anything else is a defect of the caller."""
    with pytest.raises(ValueError, match="sequence must be 0 to"):
        sign_bundle(path, RELEASE_KEY, sequence=sequence)


def test_signing_needs_a_bundle(tmp_path):
    """A file that is none is left as it is."""
    (tmp_path / "a.edgepack").write_bytes(b"no bundle")

    with pytest.raises(BundleError):
        sign_bundle(tmp_path / "a.edgepack", RELEASE_KEY, sequence=1)

    assert b"no bundle" == (tmp_path / "a.edgepack").read_bytes()


def test_the_sequence_is_the_time_of_signing_unless_it_is_given():
    """SOURCE_DATE_EPOCH makes a signature reproducible."""
    before = int(time.time())

    assert 123 == signing_sequence({"SOURCE_DATE_EPOCH": "123"})
    for environment in ({}, {"SOURCE_DATE_EPOCH": ""}):
        assert before <= signing_sequence(environment) <= before + 60


@pytest.mark.parametrize("text", ["-1", "1.5", "yesterday", "²", str(2**53)])
def test_a_source_date_that_is_no_number_is_refused(text):
    """The error names the variable."""
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH must be seconds"):
        signing_sequence({"SOURCE_DATE_EPOCH": text})
