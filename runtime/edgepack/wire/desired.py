"""The desired state: what an operator wants a device to run. The payload; its signature is DSSE.

Whoever holds a `deploy` key writes it, retained, to `in/desired`. This module knows the document;
deciding what to do about it is `edgepack.agent.install.reconcile`.
"""

import re
from enum import StrEnum

from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.topics import MAX_CONTROL_BYTES, check_id, check_prefix

DESIRED_PAYLOAD_TYPE = "application/vnd.edgepack.desired.v1+json"
DEFAULT_LIFETIME_S = 30 * 24 * 3600
MAX_MODELS = 16
MAX_GENERATION = 2**53 - 1  # beyond it JSON readers disagree about numbers
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GROUP = re.compile(r"[^=\s]{1,64}=[^\r\n]{1,256}")
_SOURCE = re.compile(r"(mqtt:|https?://.+|oci://.+|file:/.+)")


class Mode(StrEnum):
    """What a device does with a version; an agent that does not know one refuses the state."""

    INSTALL = "install"
    OFFER = "offer"  # wait until a person asks for it
    SHADOW = "shadow"  # let it see the champion's inputs; nobody sees its answers


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """A blob by digest ("sha256:HEX") and size in bytes."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whom a desired state is for: the prefix, and one device or every device with a tag.

    Attributes:
        prefix: Topic prefix; a state for another prefix is not for this device.
        device: Device id, or None.
        group: "key=value", or None.
    """

    prefix: str
    device: str | None = None
    group: str | None = None

    def includes(self, prefix: str, device: str, tags: dict[str, str]) -> bool:
        """Whether a device with that prefix, id and tags is meant."""
        if self.prefix != prefix:
            return False
        if self.device is not None:
            return self.device == device
        key, _, value = (self.group or "").partition("=")
        return bool(key) and tags.get(key) == value


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredModel:
    """One model that a device shall run.

    Attributes:
        name: The model's name.
        version: For people.
        digest: The bundle digest; the identity.
        manifest_size_bytes: Size of the bundle's manifest; 0 when only a device that already has
            the bundle can act (a rollback).
        archive_size_bytes: Size of the `.edgepack` file: the bound of a download.
        signatures: The signature manifests to fetch with it.
        sources: Where to fetch, in order: "mqtt:", "http(s)://…", "oci://…", "file:/…".
        floor: Smallest `sequence` that this device shall ever accept from now on.
        mode: install, offer or shadow.
        asked: Generation in which an operator last asked for this entry; 0 stands for the
            state's own.
    """

    name: str
    version: str
    digest: str
    manifest_size_bytes: int = 0
    archive_size_bytes: int = 0
    signatures: tuple[BlobRef, ...] = ()
    sources: tuple[str, ...] = ()
    floor: int = 0
    mode: Mode = Mode.INSTALL
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The whole wish for one audience; what it does not list is to be removed.

    Attributes:
        audience: Whom it is for.
        generation: Grows by at least one with every change.
        issued_s, expires_s: Seconds since 1970; expiry bars only starting an install.
        models: At most 16; of each model at most one entry of each mode.
    """

    audience: Audience
    generation: int
    issued_s: int
    expires_s: int
    models: tuple[DesiredModel, ...] = ()


def render_desired(desired: Desired) -> bytes:
    """The canonical payload to sign.

    Raises:
        WireError: It breaks a rule of the format, or is larger than 6 KB (the envelope's base64
            must stay under 8 KB).
    """
    _check(desired)
    payload = render(encode(desired))
    if len(payload) > (MAX_CONTROL_BYTES - 1024) * 3 // 4:
        raise WireError(
            f"desired state of {len(desired.models)} models must stay under "
            f"{MAX_CONTROL_BYTES} bytes signed, got a payload of {len(payload)}"
        )
    return payload


def parse_desired(payload: bytes) -> Desired:
    """Parse a payload whose signature was verified.

    Raises:
        WireError: It is not a valid desired state.
    """
    try:
        value = parse(payload, what="desired state", max_bytes=MAX_CONTROL_BYTES)
        desired = decode(Desired, value, what="desired state", ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    _check(desired)
    return desired


def _check(desired: Desired) -> None:
    wrong = []
    check_prefix(desired.audience.prefix)
    device, group = desired.audience.device, desired.audience.group
    if (device is None) == (group is None):
        wrong.append("audience must name either a device or a group")
    if device is not None:
        check_id(device, what="device id")
    if group is not None and not _GROUP.fullmatch(group):
        wrong.append(f"group must be KEY=VALUE, got {group[:80]!r}")
    if not 1 <= desired.generation <= MAX_GENERATION:
        wrong.append(f"generation must be >= 1 and < 2**53, got {desired.generation}")
    if desired.expires_s <= desired.issued_s:
        wrong.append(f"expires_s must be after issued_s, got {desired.expires_s}")
    if len(desired.models) > MAX_MODELS:
        wrong.append(f"at most {MAX_MODELS} models, got {len(desired.models)}")
    names = [(model.name, model.mode) for model in desired.models]
    if len(set(names)) != len(names):
        wrong.append("model names must be unique among the entries of one mode")
    for model in desired.models:
        wrong.extend(_wrong_in(model))
        if not 0 <= model.asked <= desired.generation:
            wrong.append(
                f"{model.name}: asked must be in 0..{desired.generation}, got {model.asked}"
            )
    if wrong:
        raise WireError(f"desired state: {'; '.join(wrong)}")


def _wrong_in(model: DesiredModel) -> list[str]:
    check_id(model.name, what="model name")
    refs = [model.digest, *(ref.digest for ref in model.signatures)]
    wrong = [
        f"{model.name}: digest must be sha256:HEX, got {digest[:80]!r}"
        for digest in refs
        if not _DIGEST.fullmatch(digest)
    ]
    wrong += [
        f"{model.name}: source must be mqtt:, http(s)://…, oci://… or file:/…, got {source[:80]!r}"
        for source in model.sources
        if not _SOURCE.fullmatch(source)
    ]
    sizes = [model.manifest_size_bytes, model.archive_size_bytes, model.floor]
    if min(sizes + [ref.size_bytes for ref in model.signatures]) < 0:
        wrong.append(f"{model.name}: sizes and floor must be >= 0")
    return wrong
