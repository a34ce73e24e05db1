"""`oci-layout` and `index.json`: the two documents that say what the blobs are for."""

from edgepack.bundle import media_types
from edgepack.bundle.descriptor import Descriptor
from edgepack.bundle.documents import expect, parse_descriptor, parse_object, render_descriptor
from edgepack.bundle.errors import ManifestError
from edgepack.bundle.limits import MAX_INDEX_BYTES, MAX_SIGNATURES
from edgepack.trust import strict_json
from edgepack.trust.strict_json import JsonValue
from edgepack.trust.values import dataclass

LAYOUT_NAME = "oci-layout"
INDEX_NAME = "index.json"
LAYOUT = strict_json.render({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A manifest that an index lists.

    Attributes:
        blob: The manifest (or, in other tools' layouts, another index).
        media_type: OCI's type of it.
        artifact_type: What the manifest is, or None where the index does not say.
    """

    blob: Descriptor
    media_type: str
    artifact_type: str | None


def parse_index(data: bytes) -> tuple[Entry, ...]:
    """Read an OCI image index.

    Raises:
        BundleDocumentError, OversizedDocumentError: It is not such a JSON document.
        ManifestError: It breaks a rule.
    """
    document = parse_object(data, what=INDEX_NAME, max_bytes=MAX_INDEX_BYTES)
    expect(document, "schemaVersion", 2, what=INDEX_NAME)
    if "mediaType" in document:  # optional in OCI
        expect(document, "mediaType", media_types.INDEX, what=INDEX_NAME)
    listed = document.get("manifests")
    if not isinstance(listed, list) or "layers" in document or "config" in document:
        raise ManifestError(f"{INDEX_NAME}: must be an index with a list of manifests")
    return tuple(_entry(item) for item in listed)


def parse_bundle_index(data: bytes) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Read the index of a bundle: the model's manifest first, then its signatures.

    Whether it is canonical is for the caller to see, by rendering it.

    Raises:
        BundleError: As `parse_index`; or it lists something else.
    """
    entries = parse_index(data)
    kinds = [entry.artifact_type for entry in entries]
    if kinds[:1] != [media_types.MODEL_ARTIFACT] or any(
        kind != media_types.SIGNATURE_ARTIFACT for kind in kinds[1:]
    ):
        raise ManifestError(f"{INDEX_NAME}: must list one model and then its signatures")
    if len(entries) > 1 + MAX_SIGNATURES:
        raise ManifestError(
            f"{INDEX_NAME}: must list at most {MAX_SIGNATURES} signatures, got {len(entries) - 1}"
        )
    return entries[0].blob, tuple(entry.blob for entry in entries[1:])


def render_index(model: Descriptor, version: str, signatures: tuple[Descriptor, ...]) -> bytes:
    """Write the index of a bundle, canonically; the order of the signatures does not matter."""
    manifests: list[JsonValue] = [
        render_descriptor(
            model,
            media_types.MANIFEST,
            artifactType=media_types.MODEL_ARTIFACT,
            annotations={media_types.REF_NAME_ANNOTATION: version},
        )
    ]
    manifests += [
        render_descriptor(
            signature, media_types.MANIFEST, artifactType=media_types.SIGNATURE_ARTIFACT
        )
        for signature in sorted(signatures)
    ]
    return strict_json.render(
        {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": manifests}
    )


def _entry(value: JsonValue) -> Entry:
    blob, media_type, _ = parse_descriptor(value, what=f"{INDEX_NAME} entry")
    artifact_type = value.get("artifactType") if isinstance(value, dict) else None
    return Entry(
        blob=blob,
        media_type=media_type,
        artifact_type=artifact_type if isinstance(artifact_type, str) else None,
    )
