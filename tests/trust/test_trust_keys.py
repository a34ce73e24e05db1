"""Keys: the algorithm, the files they lie in, and that nobody pays for them unused."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.trust import KeyFileError, PrivateKey, PublicKey

# RFC 8032, section 7.1, test 2
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_rfc_8032():
    """A test vector of the standard comes out, and verifies."""
    key = PrivateKey(SEED)

    assert PublicKey(PUBLIC) == key.public
    assert SIGNATURE == key.sign(b"\x72")
    assert key.public.verify(SIGNATURE, b"\x72")


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (SIGNATURE, b"\x73"),
        (SIGNATURE[:-1] + b"\x01", b"\x72"),
        (SIGNATURE[:-1], b"\x72"),
        (SIGNATURE + b"\0", b"\x72"),
        (b"", b"\x72"),
        (bytes(64), b"\x72"),
    ],
)
def test_anything_else_does_not_verify(signature, message):
    """Another message or other bytes are no signature."""
    assert not PublicKey(PUBLIC).verify(signature, message)


def test_a_key_that_is_no_point_verifies_nothing():
    """Bytes that are no public key are no error, and no signature either."""
    assert not PublicKey(b"\xff" * 32).verify(SIGNATURE, b"\x72")


def test_the_key_id_is_the_digest_of_the_raw_key():
    """Anybody can compute it from the 32 bytes alone."""
    assert hashlib.sha256(PUBLIC).hexdigest() == PublicKey(PUBLIC).key_id


def test_a_public_key_has_32_bytes():
    """Another length is a defect of the caller."""
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        PublicKey(bytes(31))


def test_the_secret_is_never_shown():
    """A private key in a log or a traceback does not give itself away."""
    key = PrivateKey(SEED)

    assert SEED.hex() not in repr(key)
    assert repr(SEED) not in repr(key)


def test_a_saved_key_is_loaded_again(tmp_path):
    """The file holds the same key and only its owner can read it."""
    key = PrivateKey.generate()

    key.save(tmp_path / "a.key")

    assert key == PrivateKey.load(tmp_path / "a.key")
    assert 0o600 == stat.S_IMODE((tmp_path / "a.key").stat().st_mode)


def test_the_umask_cannot_open_a_key(tmp_path):
    """Whatever the umask, a key file is mode 0600."""
    before = os.umask(0)
    try:
        PrivateKey.generate().save(tmp_path / "a.key")
    finally:
        os.umask(before)

    assert 0o600 == stat.S_IMODE((tmp_path / "a.key").stat().st_mode)


def test_saving_never_overwrites(tmp_path):
    """A file, and a link to nowhere, stay what they are."""
    (tmp_path / "a.key").write_text("precious")
    (tmp_path / "link.key").symlink_to(tmp_path / "elsewhere")

    for name in ("a.key", "link.key"):
        with pytest.raises(KeyFileError, match="is there already"):
            PrivateKey.generate().save(tmp_path / name)

    assert "precious" == (tmp_path / "a.key").read_text()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    """The error tells the command that mends it."""
    PrivateKey.generate().save(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)

    with pytest.raises(KeyFileError, match=r"mode 0600.*chmod 600"):
        PrivateKey.load(tmp_path / "a.key")


def write_owner_only(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unencrypted Ed25519 private key"),
        (b"no key at all", "unencrypted Ed25519 private key"),
        (b"x" * 5000, "at most 4096 bytes"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "Ed25519"),
    ],
)
def test_a_damaged_key_file_is_refused(tmp_path, data, message):
    """One line says what the file should have been."""
    path = write_owner_only(tmp_path / "a.key", data)

    with pytest.raises(KeyFileError, match=message):
        PrivateKey.load(path)


def test_keys_of_another_kind_are_refused(tmp_path):
    """An elliptic-curve key and an encrypted key are not taken for ours."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
    )
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")
    )

    with pytest.raises(KeyFileError, match="must be an Ed25519 key, got"):
        PrivateKey.load(write_owner_only(tmp_path / "curve.key", curve))
    with pytest.raises(KeyFileError, match="unencrypted"):
        PrivateKey.load(write_owner_only(tmp_path / "locked.key", locked))


def test_a_key_file_must_be_a_file(tmp_path):
    """A folder, a FIFO and nothing at all are refused without waiting."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, message in (
        ("fifo", "regular file"),
        (".", "cannot read|regular file"),
        ("none", "No such file"),
    ):
        with pytest.raises(KeyFileError, match=message):
            PrivateKey.load(tmp_path / name)


def test_cryptography_is_loaded_by_the_first_use_of_a_key_and_not_before():
    """A device that only restarts a model never pays for it."""
    script = """
import sys
import edgepack.trust, edgepack.bundle
from edgepack.trust import PublicKey, Role, dsse
PublicKey(bytes(32)).key_id
before = sorted(name for name in sys.modules if name.split(".")[0] == "cryptography")
PublicKey(bytes(32)).verify(bytes(64), b"")
after = "cryptography" in sys.modules
print(before, after)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "[] True" == result.stdout.strip()
