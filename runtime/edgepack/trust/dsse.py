"""DSSE envelopes: signed bytes with a type (secure-systems-lab, DSSE 1.0.2).

A signature covers `PAE(type, payload)`, so it holds for one type of document only. The key id in
an envelope is a hint and decides nothing: what counts is which trusted key verifies. Unlike the
specification, base64 is taken in the standard alphabet only and in its one canonical spelling.
"""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence

from edgepack.trust import strict_json
from edgepack.trust.errors import DocumentError, SignatureError
from edgepack.trust.keys import PrivateKey, PublicKey
from edgepack.trust.values import dataclass

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_SIGNATURES = 16
_MAX_DEPTH = 4
_SHOWN_ID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature of an envelope: the signer's hint of its key, and 64 bytes for Ed25519."""

    key_id: str | None
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed envelope, of which NOTHING has been verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def sign(payload: bytes, payload_type: str, keys: Sequence[PrivateKey]) -> bytes:
    """Sign a payload; the order of the keys does not matter and a key signs once.

    Returns:
        The envelope as canonical JSON. The same payload and keys always give the same bytes.
    """
    message = pre_authentication_encoding(payload_type, payload)
    signatures = tuple(
        Signature(key_id=key.public.key_id, signature=key.sign(message)) for key in keys
    )
    return _render(Envelope(payload_type=payload_type, payload=payload, signatures=signatures))


def add_signatures(envelope: bytes, payload_type: str, keys: Sequence[PrivateKey]) -> bytes:
    """Add signatures to an envelope that somebody else has signed already.

    Raises:
        DocumentError: It is not an envelope of that type.
    """
    old = parse(envelope, payload_type)
    message = pre_authentication_encoding(payload_type, old.payload)
    added = tuple(Signature(key_id=key.public.key_id, signature=key.sign(message)) for key in keys)
    return _render(
        Envelope(
            payload_type=payload_type, payload=old.payload, signatures=(*old.signatures, *added)
        )
    )


def unverified_payload(envelope: bytes, payload_type: str) -> bytes:
    """Give the payload WITHOUT looking at any signature: for showing, never for deciding.

    Raises:
        DocumentError: It is not an envelope of that type.
    """
    return parse(envelope, payload_type).payload


def verify(
    envelope: bytes, payload_type: str, keys: Mapping[str, PublicKey], threshold: int
) -> bytes:
    """Give the payload, once enough different keys have signed it.

    Args:
        envelope: The envelope's JSON.
        payload_type: The type that it must have.
        keys: The keys that count, by key id.
        threshold: How many of them must have signed, at least 1. A key counts once.

    Raises:
        SignatureError: It is not such an envelope, or too few of the keys have signed it.
    """
    try:
        parsed = parse(envelope, payload_type)
    except DocumentError as exc:
        raise SignatureError(str(exc)) from exc
    require_threshold(parsed, signers(parsed, keys), keys, threshold)
    return parsed.payload


def signers(envelope: Envelope, keys: Mapping[str, PublicKey]) -> frozenset[str]:
    """Tell which of the keys have signed, by key id; signatures by others are passed over."""
    message = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    found = set()
    for signature in envelope.signatures:
        for key_id in keys if signature.key_id is None else (signature.key_id,):
            if key_id in keys and keys[key_id].verify(signature.signature, message):
                found.add(key_id)
    return frozenset(found)


def require_threshold(
    envelope: Envelope, signed: Collection[str], keys: Mapping[str, PublicKey], threshold: int
) -> None:
    """Refuse fewer than `threshold` signers, and say who signed instead.

    Raises:
        SignatureError: Too few.
    """
    if threshold < 1:
        raise ValueError(f"threshold must be at least 1, got {threshold}")
    if len(set(signed)) >= threshold:
        return
    claimed = {signature.key_id or "unnamed" for signature in envelope.signatures}
    broken = sorted(claimed & keys.keys() - set(signed))
    if broken:
        raise SignatureError(
            f"the signature by key {broken[0][:_SHOWN_ID]}… does not fit what it signs"
        )
    raise SignatureError(
        f"must be signed by {threshold} of the trusted keys {shown_keys(keys)}, "
        f"got {len(set(signed))} of them (signed by {shown_keys(claimed)})"
    )


def shown_keys(key_ids: Collection[str]) -> str:
    """Shorten key ids for a message."""
    shown = sorted(_plain(key_id[:_SHOWN_ID]) for key_id in key_ids)
    return ", ".join(f"{key_id}…" for key_id in shown) or "nobody"


def _plain(key_id: str) -> str:
    # A key id in an envelope is whatever its maker wrote, terminal commands included.
    return key_id if key_id.isascii() and key_id.isalnum() else ascii(key_id)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Join type and payload so that no two pairs give the same bytes (DSSE's PAE).

    >>> pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(data: bytes, payload_type: str) -> Envelope:
    """Parse an envelope without verifying it.

    Raises:
        DocumentError: It is not an envelope of that type, or it is too large.
    """
    document = strict_json.parse(
        data, what="envelope", max_bytes=MAX_ENVELOPE_BYTES, max_depth=_MAX_DEPTH
    )
    if not isinstance(document, dict):
        raise DocumentError("envelope must be a JSON object, got something else")
    if document.get("payloadType") != payload_type:
        got = repr(document.get("payloadType"))[:80]
        raise DocumentError(f"envelope must have payloadType {payload_type!r}, got {got}")
    listed = document.get("signatures")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_SIGNATURES:
        raise DocumentError(f"envelope must have 1 to {MAX_SIGNATURES} signatures")
    return Envelope(
        payload_type=payload_type,
        payload=_base64(document.get("payload"), "payload"),
        signatures=tuple(_signature(item) for item in listed),
    )


def _signature(item: strict_json.JsonValue) -> Signature:
    if not isinstance(item, dict):
        raise DocumentError("envelope: a signature must be an object, got something else")
    key_id = item.get("keyid")
    if key_id is not None and not isinstance(key_id, str):
        raise DocumentError("envelope: keyid must be a string, got something else")
    return Signature(key_id=key_id or None, signature=_base64(item.get("sig"), "sig"))


def _base64(text: strict_json.JsonValue, field: str) -> bytes:
    try:
        if isinstance(text, str):
            data = base64.b64decode(text.encode("ascii"), validate=True)
            if base64.b64encode(data).decode() == text:
                return data
    except (binascii.Error, UnicodeEncodeError):
        pass
    raise DocumentError(f"envelope: {field} must be canonical base64, got something else")


def _render(envelope: Envelope) -> bytes:
    unique = {(item.key_id or "", item.signature) for item in envelope.signatures}
    if not 1 <= len(unique) <= MAX_SIGNATURES:
        raise ValueError(f"an envelope has 1 to {MAX_SIGNATURES} signatures, got {len(unique)}")
    return strict_json.render(
        {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": envelope.payload_type,
            "signatures": [
                {"keyid": key_id, "sig": base64.b64encode(signature).decode()}
                for key_id, signature in sorted(unique)
            ],
        }
    )
