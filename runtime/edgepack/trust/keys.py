"""Ed25519 keys (RFC 8032).

`cryptography` is imported inside the functions that use a key and nowhere else. The methods used
exist since version 38.
"""

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.trust.errors import KeyFileError
from edgepack.trust.key_files import read_secret, write_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies.

    Attributes:
        raw: The 32 bytes of RFC 8032.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_KEY_BYTES:
            raise ValueError(f"an Ed25519 public key has 32 bytes, got {len(self.raw)}")

    @functools.cached_property
    def key_id(self) -> str:
        """SHA-256 of the 32 raw bytes, in lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key's owner signed the message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs; its `repr` never shows the secret.

    Attributes:
        seed: The 32 secret bytes of RFC 8032.
    """

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "PrivateKey":
        """Make a key from the system's randomness."""
        return cls(os.urandom(32))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PrivateKey":
        """Read a key that `save` or `openssl genpkey -algorithm ed25519` wrote.

        Raises:
            KeyFileError: It is missing, open to other users, encrypted, or no such key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = read_secret(Path(path))
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise KeyFileError(
                f"{path} must be an unencrypted Ed25519 private key in PEM form, got something else"
            ) from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path} must be an Ed25519 key, got {type(key).__name__}")
        return cls(_seed_of(key))

    @functools.cached_property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return PublicKey(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, message: bytes) -> bytes:
        """Sign a message; the same key and message always give the same 64 bytes."""
        return self._key.sign(message)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key as PKCS #8 PEM, readable by its owner only; never overwrites.

        Raises:
            KeyFileError: The file is there already, or cannot be written.
        """
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(Path(path), pem)

    @property
    def _key(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


def _seed_of(key: "Ed25519PrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
