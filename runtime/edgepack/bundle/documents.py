"""Read the JSON documents of a bundle: bounded, strict, errors as the bundle's own."""

import re

from edgepack.bundle.descriptor import Descriptor, is_digest
from edgepack.bundle.errors import BundleDocumentError, ManifestError, OversizedDocumentError
from edgepack.bundle.limits import MAX_BLOB_BYTES
from edgepack.trust import strict_json
from edgepack.trust.errors import DocumentError, DocumentLimitError
from edgepack.trust.strict_json import JsonValue

MAX_DEPTH = 16
_MEDIA_TYPE = re.compile(  # RFC 6838, section 4.2
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII
)


def parse_object(data: bytes, *, what: str, max_bytes: int) -> dict[str, JsonValue]:
    """Parse a document whose outermost value is an object.

    Raises:
        OversizedDocumentError: It is larger or nested deeper than anything of its kind.
        BundleDocumentError: It is not JSON, or not an object.
    """
    try:
        value = strict_json.parse(data, what=what, max_bytes=max_bytes, max_depth=MAX_DEPTH)
    except DocumentLimitError as exc:
        raise OversizedDocumentError(str(exc)) from exc
    except DocumentError as exc:
        raise BundleDocumentError(str(exc)) from exc
    if not isinstance(value, dict):
        raise BundleDocumentError(f"{what} must be a JSON object, got something else")
    return value


def check_document_size(what: str, blob: Descriptor, max_bytes: int) -> None:
    """Refuse a document for its size, before it is read.

    Raises:
        OversizedDocumentError: It is larger than anything of its kind.
    """
    if blob.size_bytes > max_bytes:
        raise OversizedDocumentError(
            f"{what} must be at most {max_bytes} bytes, got {blob.size_bytes}"
        )


def expect(document: dict[str, JsonValue], key: str, value: JsonValue, *, what: str) -> None:
    """Refuse a document in which a key has not this very value.

    Raises:
        ManifestError: The key is missing or has another value.
    """
    got = document.get(key)
    if type(got) is not type(value) or got != value:
        raise ManifestError(f"{what}: {key} must be {value!r}, got {repr(got)[:80]}")


def parse_descriptor(value: JsonValue, *, what: str) -> tuple[Descriptor, str, dict[str, str]]:
    """Read an OCI descriptor.

    Returns:
        The descriptor, its media type and its annotations.

    Raises:
        ManifestError: It is not one, or its content would lie elsewhere.
    """
    if not isinstance(value, dict):
        raise ManifestError(f"{what} must be a descriptor, got {repr(value)[:80]}")
    digest, size = value.get("digest"), value.get("size")
    media_type, annotations = value.get("mediaType"), value.get("annotations", {})
    if not isinstance(digest, str) or not is_digest(digest):
        raise ManifestError(f"{what}: digest must be sha256:HEX, got {repr(digest)[:80]}")
    if type(size) is not int or not 0 <= size <= MAX_BLOB_BYTES:
        raise ManifestError(
            f"{what}: size must be 0 to {MAX_BLOB_BYTES} bytes, got {repr(size)[:40]}"
        )
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise ManifestError(f"{what}: mediaType must be TYPE/SUBTYPE, got {repr(media_type)[:80]}")
    if "urls" in value or "data" in value:
        raise ManifestError(f"{what}: urls and data have no place in a bundle")
    if not isinstance(annotations, dict):
        raise ManifestError(f"{what}: annotations must be an object of strings")
    texts = {key: text for key, text in annotations.items() if isinstance(text, str)}
    if len(texts) != len(annotations):
        raise ManifestError(f"{what}: annotations must be an object of strings")
    return Descriptor(digest=digest, size_bytes=size), media_type, texts


def render_descriptor(
    descriptor: Descriptor, media_type: str, **more: JsonValue
) -> dict[str, JsonValue]:
    """Write an OCI descriptor."""
    return {
        "mediaType": media_type,
        "digest": descriptor.digest,
        "size": descriptor.size_bytes,
        **more,
    }
