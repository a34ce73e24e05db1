"""The key that signs, and the sequence that it signs with."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle import signing_sequence
from edgepack.converter.errors import RequestError
from edgepack.converter.request import ConvertRequest
from edgepack.trust import RELEASE, KeyFileError, PrivateKey, keygen
from edgepack.trust.generate import key_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """How a bundle will be signed.

    Attributes:
        key: Of the release role; None until development keys are made.
        keys: The folder to make development keys in, or None.
        sequence: In seconds since 1970.
    """

    key: PrivateKey | None
    keys: Path | None
    sequence: int


def find_signer(request: ConvertRequest) -> Signer:
    """Find the key before the work begins, so that a wrong one is told at once.

    Raises:
        KeyFileError: The key that was named is missing or damaged.
        RequestError: `SOURCE_DATE_EPOCH` or the sequence is no number of seconds.
    """
    sequence = _sequence(request.sequence)
    if request.key is not None:
        return Signer(key=PrivateKey.load(request.key), keys=None, sequence=sequence)
    if request.keys is not None:
        if not key_path(request.keys, RELEASE).exists():
            raise KeyFileError(
                f"no release.key in {request.keys}: edgepack keygen {request.keys} makes keys there"
            )
        key = PrivateKey.load(key_path(request.keys, RELEASE))
        return Signer(key=key, keys=None, sequence=sequence)
    folder = default_keys_folder()
    if key_path(folder, RELEASE).exists():
        key = PrivateKey.load(key_path(folder, RELEASE))
        return Signer(key=key, keys=None, sequence=sequence)
    return Signer(key=None, keys=folder, sequence=sequence)


def signing_key(signer: Signer) -> PrivateKey:
    """The key; development keys are made now if there are none.

    Raises:
        KeyFileError: They cannot be written.
    """
    if signer.key is not None:
        return signer.key
    return PrivateKey.load(keygen(signer.keys or default_keys_folder()).release_key)


def default_keys_folder() -> Path:
    """`$XDG_CONFIG_HOME/edgepack/keys`."""
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "edgepack" / "keys"


def _sequence(given: int | None) -> int:
    try:
        sequence = signing_sequence() if given is None else given
    except ValueError as exc:
        raise RequestError(str(exc)) from exc
    if sequence < 0:
        raise RequestError(f"sequence must be >= 0, got {sequence}")
    return sequence
