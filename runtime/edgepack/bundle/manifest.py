"""The two OCI manifests: of the model, whose digest is the bundle's identity, and of a signature.

A manifest is taken as it is: its bytes are bound by its digest, and keys that this reader does not
know are ignored, so that a later writer may add some.
"""

from edgepack.bundle import media_types
from edgepack.bundle.descriptor import Descriptor, describe
from edgepack.bundle.documents import (
    check_document_size,
    expect,
    parse_descriptor,
    parse_object,
    render_descriptor,
)
from edgepack.bundle.errors import DuplicateError, ManifestError
from edgepack.bundle.limits import (
    MAX_CONFIG_BYTES,
    MAX_CONTRACT_BYTES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
)
from edgepack.bundle.part_path import check_paths
from edgepack.trust import strict_json
from edgepack.trust.dsse import MAX_ENVELOPE_BYTES
from edgepack.trust.strict_json import JsonValue
from edgepack.trust.values import dataclass

CONTRACT_PATH = "contract.json"
EMPTY_DOCUMENT = b"{}"
EMPTY_BLOB = describe(EMPTY_DOCUMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file of the bundle.

    Attributes:
        path: Where it lies in the bundle ("onnx-fp32/model.onnx").
        media_type: What it is.
        blob: Its bytes.
    """

    path: str
    media_type: str
    blob: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The model's manifest.

    Attributes:
        config: The ModelPack configuration.
        layers: Every file of the bundle; the contract is the first.
    """

    config: Descriptor
    layers: tuple[Layer, ...]

    @property
    def contract(self) -> Layer:
        """The layer that holds the contract."""
        return self.layers[0]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that it names."""
        return (self.config, *(layer.blob for layer in self.layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureManifest:
    """The manifest of a signature.

    Attributes:
        subject: The model manifest that it is for.
        envelope: The DSSE envelope.
    """

    subject: Descriptor
    envelope: Descriptor

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that it names but its subject."""
        return (EMPTY_BLOB, self.envelope)


def blobs_of_manifest(data: bytes) -> tuple[Descriptor, ...]:
    """Tell which blobs a manifest (of a model or of a signature) names, itself excluded.

    This is what a device that has fetched a manifest fetches next.

    Raises:
        BundleError: It is not a manifest of a bundle.
    """
    if _artifact_type(data) == media_types.SIGNATURE_ARTIFACT:
        return parse_signature_manifest(data).blobs
    return parse_manifest(data).blobs


def parse_manifest(data: bytes) -> Manifest:
    """Read a model's manifest.

    Raises:
        BundleDocumentError, OversizedDocumentError: It is not such a JSON document.
        ManifestError, TraversalError, DuplicateError: It breaks a rule.
    """
    what = "manifest"
    document = _parse(data, what, media_types.MODEL_ARTIFACT)
    config, config_type, _ = parse_descriptor(document.get("config"), what=f"{what} config")
    if config_type != media_types.MODEL_CONFIG:
        raise ManifestError(
            f"{what}: config must be {media_types.MODEL_CONFIG}, got {config_type[:80]}"
        )
    check_document_size("model config", config, MAX_CONFIG_BYTES)
    listed = document.get("layers")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_LAYERS:
        raise ManifestError(f"{what}: layers must be a list of 1 to {MAX_LAYERS}")
    layers = tuple(_layer(item, f"{what} layer {index}") for index, item in enumerate(listed))
    contracts = [layer for layer in layers if layer.media_type == media_types.CONTRACT]
    if contracts != [layers[0]] or layers[0].path != CONTRACT_PATH:
        raise ManifestError(
            f"{what}: the first layer, and no other, must be {CONTRACT_PATH} of type "
            f"{media_types.CONTRACT}"
        )
    check_document_size("contract", layers[0].blob, MAX_CONTRACT_BYTES)
    check_paths(tuple(layer.path for layer in layers))
    _check_once(what, (config, *(layer.blob for layer in layers)))
    return Manifest(config=config, layers=layers)


def render_manifest(manifest: Manifest) -> bytes:
    """Write a model's manifest, canonically."""
    return strict_json.render(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": media_types.MODEL_ARTIFACT,
            "config": render_descriptor(manifest.config, media_types.MODEL_CONFIG),
            "layers": [
                render_descriptor(
                    layer.blob,
                    layer.media_type,
                    annotations={media_types.FILEPATH_ANNOTATION: layer.path},
                )
                for layer in manifest.layers
            ],
        }
    )


def parse_signature_manifest(data: bytes) -> SignatureManifest:
    """Read the manifest of a signature.

    Raises:
        BundleDocumentError, OversizedDocumentError: It is not such a JSON document.
        ManifestError: It breaks a rule.
    """
    what = "signature manifest"
    document = _parse(data, what, media_types.SIGNATURE_ARTIFACT)
    subject, subject_type, _ = parse_descriptor(document.get("subject"), what=f"{what} subject")
    if subject_type != media_types.MANIFEST:
        raise ManifestError(f"{what}: subject must be a manifest, got {subject_type[:80]}")
    config, config_type, _ = parse_descriptor(document.get("config"), what=f"{what} config")
    if config != EMPTY_BLOB or config_type != media_types.EMPTY:
        raise ManifestError(f"{what}: config must be OCI's empty document")
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) != 1:
        raise ManifestError(f"{what}: layers must be a list of one envelope")
    envelope, envelope_type, _ = parse_descriptor(listed[0], what=f"{what} layer")
    if envelope_type != media_types.ENVELOPE:
        raise ManifestError(
            f"{what}: the layer must be {media_types.ENVELOPE}, got {envelope_type[:80]}"
        )
    check_document_size("envelope", envelope, MAX_ENVELOPE_BYTES)
    _check_once(what, (subject, config, envelope))
    return SignatureManifest(subject=subject, envelope=envelope)


def render_signature_manifest(manifest: SignatureManifest) -> bytes:
    """Write the manifest of a signature, canonically."""
    return strict_json.render(
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": media_types.SIGNATURE_ARTIFACT,
            "config": render_descriptor(EMPTY_BLOB, media_types.EMPTY),
            "layers": [render_descriptor(manifest.envelope, media_types.ENVELOPE)],
            "subject": render_descriptor(manifest.subject, media_types.MANIFEST),
        }
    )


def check_media_type(media_type: str) -> str:
    """Give a layer's media type back if files of a bundle may have it.

    Raises:
        ManifestError: It is neither an unpacked file of the model specification nor ours.
    """
    ours = media_type.startswith(media_types.OURS_PREFIX) and len(media_type) <= 255
    if not ours and media_type not in media_types.MODEL_LAYERS:
        raise ManifestError(
            f"media type of a file must be {media_types.OURS_PREFIX}* or one of "
            f"{', '.join(sorted(media_types.MODEL_LAYERS))}, got {media_type[:80]!r}"
        )
    return media_type


def _layer(value: JsonValue, what: str) -> Layer:
    blob, media_type, annotations = parse_descriptor(value, what=what)
    path = annotations.get(media_types.FILEPATH_ANNOTATION)
    if path is None:
        raise ManifestError(f"{what}: annotation {media_types.FILEPATH_ANNOTATION} is missing")
    return Layer(path=path, media_type=check_media_type(media_type), blob=blob)


def _artifact_type(data: bytes) -> JsonValue:
    return parse_object(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES).get("artifactType")


def _parse(data: bytes, what: str, artifact_type: str) -> dict[str, JsonValue]:
    document = parse_object(data, what=what, max_bytes=MAX_MANIFEST_BYTES)
    expect(document, "schemaVersion", 2, what=what)
    expect(document, "mediaType", media_types.MANIFEST, what=what)
    expect(document, "artifactType", artifact_type, what=what)
    if "manifests" in document:
        # A document that is a manifest to one reader and an index to another (CVE-2021-41190).
        raise ManifestError(f"{what}: a manifest must not have manifests")
    return document


def _check_once(what: str, blobs: tuple[Descriptor, ...]) -> None:
    digests = [blob.digest for blob in blobs]
    if len(set(digests)) != len(digests):
        twice = next(digest for digest in digests if digests.count(digest) > 1)
        raise DuplicateError(f"{what}: blob {twice} stands twice; every blob is named once")
