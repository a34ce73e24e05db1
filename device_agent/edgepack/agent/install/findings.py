"""What child processes find out: the values that `worker.py` gives back. No I/O."""

from dataclasses import field

from edgepack.agent.install.journal import Stored
from edgepack.runtime.options import SessionOptions
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle whose digests and signature were checked; its blobs are still in staging."""

    stored: Stored
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDesired:
    """A desired state's payload, and the ids of the deploy keys that signed it."""

    payload: bytes
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRoot:
    """The root of trust that holds now.

    Attributes:
        version: Its version.
        digest: SHA-256 of its file, "sha256:HEX".
        deploy_keys: Ids of the keys of its deploy role, sorted.
        envelope_good: Whether that role vouches for the desired state that is followed.
    """

    version: int
    digest: str
    deploy_keys: tuple[str, ...]
    envelope_good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Signed documents, and the public key in hex of what signed them."""

    key: str
    envelopes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the self-test picked on this device.

    Attributes:
        variant: Its name.
        figures: Its figures.
        failed: What else was tried, and why it was not taken.
        options: How it is to run.
        fingerprint: Of the engines and the processor.
    """

    variant: str
    figures: dict[str, float]
    failed: tuple[str, ...]
    options: SessionOptions = field(default_factory=SessionOptions)
    fingerprint: str = ""
