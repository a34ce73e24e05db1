"""A signed folder of wheels: how a new version of the agent comes to a device without a network.

`wheelhouse.json` in the folder is a DSSE envelope over the wheels' names, sizes and digests. The
release role signs it, under a payload type of its own, and under the name `edgepack-agent`: a role
that may sign only some models must name that, too (docs/adr/0015). What the folder holds besides
is not looked at.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.trust.decode import decode, encode
from edgepack.trust.dsse import MAX_ENVELOPE_BYTES
from edgepack.trust.errors import DocumentError
from edgepack.trust.key_files import read_small, replace_file
from edgepack.trust.payload_types import WHEELHOUSE_PAYLOAD_TYPE
from edgepack.trust.root_document import RELEASE
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WheelhouseError

if TYPE_CHECKING:
    from edgepack.trust import PrivateKey, Root

MANIFEST_NAME = "wheelhouse.json"
SIGNED_AS = "edgepack-agent"
MAX_WHEELS = 256
MAX_WHEEL_BYTES = 2_000_000_000
_FORMAT = 1
_CHUNK_BYTES = 1024 * 1024
# name-version(-build)?-python-abi-platform.whl, as the wheel specification escapes them
_WHEEL = re.compile(r"[A-Za-z0-9._]{1,80}(-[A-Za-z0-9._+!]{1,80}){4,5}\.whl")
_VERSION = re.compile(r"[A-Za-z0-9._+!]{1,64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\],=<>~!+ -]{0,199}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One file: its name, SHA-256 ("sha256:HEX") and size in bytes."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheelhouse:
    """What was signed.

    Attributes:
        format: 1.
        version: Of edgepack.
        sequence: When it was signed, in seconds since 1970.
        wheels: All files, sorted by name; perhaps for several kinds of devices.
        requirements: What to install of them, as pip takes it; empty: edgepack, and the engines
            that the device has.
    """

    format: int = _FORMAT
    version: str
    sequence: int
    wheels: tuple[Wheel, ...]
    requirements: tuple[str, ...] = ()


def render_wheelhouse(house: Wheelhouse) -> bytes:
    """The canonical payload to sign.

    Raises:
        WheelhouseError: It breaks a rule of the format.
    """
    _check(house)
    return render(encode(house))


def parse_wheelhouse(payload: bytes) -> Wheelhouse:
    """Parse a payload whose signature was verified.

    Raises:
        WheelhouseError: It is not such a document.
    """
    try:
        value = parse(payload, what=MANIFEST_NAME, max_bytes=MAX_ENVELOPE_BYTES)
        house = decode(Wheelhouse, value, what=MANIFEST_NAME, ignore_unknown=True)
    except DocumentError as exc:
        raise WheelhouseError(str(exc)) from exc
    _check(house)
    return house


def measure_wheels(folder: Path, *, sequence: int, requirements: Sequence[str] = ()) -> Wheelhouse:
    """Describe the wheels of a folder.

    Raises:
        WheelhouseError: Not exactly one version of edgepack is there.
    """
    wheels = tuple(
        Wheel(name=path.name, digest=_hash(path), size_bytes=path.stat().st_size)
        for path in sorted(folder.glob("*.whl"))
    )
    versions = {wheel.name.split("-")[1] for wheel in wheels if wheel.name.startswith("edgepack-")}
    if len(versions) != 1:
        found = ", ".join(sorted(versions)) or "none"
        raise WheelhouseError(f"{folder} must hold one version of edgepack's wheel, got {found}")
    return Wheelhouse(
        version=versions.pop(),
        sequence=sequence,
        wheels=wheels,
        requirements=tuple(requirements),
    )


def sign_wheelhouse(
    folder: Path,
    keys: Sequence["PrivateKey"],
    *,
    sequence: int,
    requirements: Sequence[str] = (),
) -> Wheelhouse:
    """Write `wheelhouse.json`; a manifest of the same content keeps its other signatures.

    Args:
        folder: Holds the wheels.
        keys: Of the release role.
        sequence: When it is signed, in seconds since 1970; keys that reach a threshold together
            sign with the same one.
        requirements: What to install of them; see `Wheelhouse`.

    Raises:
        WheelhouseError: The folder is no wheelhouse.
        KeyFileError: The manifest cannot be written.
    """
    from edgepack.trust import dsse

    house = measure_wheels(folder, sequence=sequence, requirements=requirements)
    payload = render_wheelhouse(house)
    path = folder / MANIFEST_NAME
    envelope = dsse.sign(payload, WHEELHOUSE_PAYLOAD_TYPE, keys)
    if path.exists():
        old = read_small(path, max_bytes=MAX_ENVELOPE_BYTES)
        try:
            if dsse.unverified_payload(old, WHEELHOUSE_PAYLOAD_TYPE) == payload:
                envelope = dsse.add_signatures(old, WHEELHOUSE_PAYLOAD_TYPE, keys)
        except DocumentError:
            pass  # no manifest: it is written anew
    replace_file(path, envelope, mode=0o644)
    return house


def open_wheelhouse(folder: Path, root: "Root") -> Wheelhouse:
    """Read the manifest of a folder; of the wheels nothing is looked at yet.

    Raises:
        WheelhouseError: There is none, or it is malformed.
        SignatureError: The release role did not sign it, or may not sign the agent.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise WheelhouseError(
            f"{folder} must hold a {MANIFEST_NAME}, got none; "
            "`edgepack wheelhouse sign` makes it on the workstation"
        )
    envelope = read_small(path, max_bytes=MAX_ENVELOPE_BYTES)
    payload = root.verify(RELEASE, envelope, WHEELHOUSE_PAYLOAD_TYPE, model=SIGNED_AS)
    return parse_wheelhouse(payload)


def copy_wheels(folder: Path, house: Wheelhouse, target: Path) -> None:
    """Copy the signed wheels, and nothing else; what is hashed is what is copied.

    Args:
        folder: Where the wheels are; others may write there meanwhile.
        house: What was signed.
        target: A folder that only this user writes to.

    Raises:
        WheelhouseError: A wheel is missing, or is another one than was signed.
        OSError: The disk does not take them.
    """
    for wheel in house.wheels:
        try:
            source = (folder / wheel.name).open("rb")
        except OSError as exc:
            raise WheelhouseError(f"{wheel.name} cannot be read: {exc.strerror}") from exc
        digest, left = hashlib.sha256(), wheel.size_bytes
        with source, (target / wheel.name).open("wb") as copy:
            while left > 0 and (chunk := source.read(min(_CHUNK_BYTES, left))):
                digest.update(chunk)
                copy.write(chunk)
                left -= len(chunk)
            surplus = source.read(1)
        if left or surplus or f"sha256:{digest.hexdigest()}" != wheel.digest:
            raise WheelhouseError(f"{wheel.name} is not the file that was signed")


def check_wheels(folder: Path, house: Wheelhouse) -> None:
    """Compare every signed wheel with its file.

    Raises:
        WheelhouseError: A wheel is missing, or is another one than was signed.
    """
    for wheel in house.wheels:
        path = folder / wheel.name
        try:
            same = path.stat().st_size == wheel.size_bytes and _hash(path) == wheel.digest
        except OSError as exc:
            raise WheelhouseError(f"{wheel.name} cannot be read: {exc.strerror}") from exc
        if not same:
            raise WheelhouseError(f"{wheel.name} is not the file that was signed")


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def _check(house: Wheelhouse) -> None:
    wrong = []
    if house.format != _FORMAT:
        wrong.append(f"format must be {_FORMAT}, got {house.format}")
    if not _VERSION.fullmatch(house.version):
        wrong.append(f"version must be a version, got {house.version[:80]!r}")
    if not 1 <= len(house.wheels) <= MAX_WHEELS:
        wrong.append(f"must list 1 to {MAX_WHEELS} wheels, got {len(house.wheels)}")
    if house.sequence < 0:
        wrong.append(f"sequence must be >= 0, got {house.sequence}")
    names = [wheel.name for wheel in house.wheels]
    if sorted(set(names)) != names:
        wrong.append("wheels must be sorted by name, each once")
    for wheel in house.wheels:
        if not _WHEEL.fullmatch(wheel.name):
            wrong.append(f"name of a wheel expected, got {wheel.name[:80]!r}")
        if not _DIGEST.fullmatch(wheel.digest) or not 0 < wheel.size_bytes <= MAX_WHEEL_BYTES:
            wrong.append(f"{wheel.name[:80]}: digest or size is wrong")
    wrong += [
        f"requirement expected, got {text[:80]!r}"
        for text in house.requirements
        if not _REQUIREMENT.fullmatch(text)
    ]
    if wrong:
        raise WheelhouseError(f"{MANIFEST_NAME}: {'; '.join(wrong[:5])}")
