"""Manifests and configuration: valid to OCI and to the CNCF model specification."""

import json

import jsonschema
import pytest
from bundle_factory import (
    RELEASE_KEY,
    Crafted,
    descriptor,
    dump,
    small_contract,
    small_parts,
    small_variant,
    write_small,
)

from edgepack.bundle import (
    Part,
    blobs_of_manifest,
    describe,
    media_types,
    open_bundle,
    sign_bundle,
    write_bundle,
)
from edgepack.bundle.errors import (
    ContractError,
    DigestError,
    DuplicateError,
    ForeignSignatureError,
    ManifestError,
    TraversalError,
)

DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
STRINGS = {"type": "array", "items": {"type": "string"}}
OCI_DESCRIPTOR = {
    "type": "object",
    "required": ["mediaType", "digest", "size"],
    "properties": {
        "mediaType": {"type": "string", "pattern": "^[A-Za-z0-9.+-]{1,127}/[A-Za-z0-9.+-]{1,127}$"},
        "digest": DIGEST,
        "size": {"type": "integer", "minimum": 0},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "artifactType": {"type": "string"},
    },
}
# OCI image specification 1.1, manifest.md and image-index.md
OCI_MANIFEST = {
    "type": "object",
    "required": ["schemaVersion", "mediaType", "artifactType", "config", "layers"],
    "properties": {
        "schemaVersion": {"const": 2},
        "mediaType": {"const": "application/vnd.oci.image.manifest.v1+json"},
        "config": OCI_DESCRIPTOR,
        "layers": {"type": "array", "minItems": 1, "items": OCI_DESCRIPTOR},
        "subject": OCI_DESCRIPTOR,
    },
}
OCI_INDEX = {
    "type": "object",
    "required": ["schemaVersion", "manifests"],
    "properties": {
        "schemaVersion": {"const": 2},
        "mediaType": {"const": "application/vnd.oci.image.index.v1+json"},
        "manifests": {"type": "array", "items": OCI_DESCRIPTOR},
    },
}
# CNCF model specification, docs/config.md: what a model configuration may hold, and nothing else
MODEL_CONFIG = {
    "type": "object",
    "additionalProperties": False,
    "required": ["descriptor", "config", "modelfs"],
    "properties": {
        "descriptor": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "createdAt": {"type": "string", "format": "date-time"},
                **{
                    key: {"type": "string"}
                    for key in [
                        "vendor",
                        "family",
                        "version",
                        "title",
                        "description",
                        "docURL",
                        "sourceURL",
                        "revision",
                    ]
                },
                **dict.fromkeys(("authors", "licenses", "datasetsURL"), STRINGS),
            },
        },
        "config": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **{
                    key: {"type": "string"}
                    for key in ["architecture", "format", "paramSize", "precision", "quantization"]
                },
                "capabilities": {"type": "object"},
            },
        },
        "modelfs": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "diffIds"],
            "properties": {
                "type": {"const": "layers"},
                "diffIds": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
        },
    },
}


@pytest.fixture
def bundle(tmp_path):
    """A signed bundle."""
    path = write_small(tmp_path / "a.edgepack")
    sign_bundle(path, RELEASE_KEY, sequence=1)
    return open_bundle(path)


def test_the_manifest_is_an_oci_manifest_of_a_model(bundle):
    """Types and annotations are those of the CNCF model specification."""
    document = json.loads(bundle.read_blob(bundle.digest))

    jsonschema.validate(document, OCI_MANIFEST)
    assert "application/vnd.cncf.model.manifest.v1+json" == document["artifactType"]
    assert "application/vnd.cncf.model.config.v1+json" == document["config"]["mediaType"]
    assert {
        "contract.json": "application/vnd.edgepack.contract.v1+json",
        "README.md": "application/vnd.cncf.model.doc.v1.raw",
        "golden.safetensors": "application/vnd.cncf.model.dataset.v1.raw",
        "onnx-fp32/model.onnx": "application/vnd.cncf.model.weight.v1.raw",
    } == {
        layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"]
        for layer in document["layers"]
    }


def test_the_configuration_is_valid_to_the_model_specification(bundle):
    """It holds only what the specification's schema allows, and no clock."""
    config = json.loads(bundle.read_blob(bundle.manifest.config.digest))

    jsonschema.validate(config, MODEL_CONFIG)
    assert {"name": "pump", "version": "1.2.3"} == config["descriptor"]
    assert {"format": "onnx", "precision": "fp32"} == config["config"]
    assert [layer.blob.digest for layer in bundle.manifest.layers] == config["modelfs"]["diffIds"]


def test_variants_of_several_kinds_are_mixed(tmp_path):
    """The configuration has one word for the format and one for the precision."""
    variants = (
        small_variant(),
        small_variant(
            name="tflite-int8", files=("tflite-int8/model.tflite",), precision="int8", size_bytes=2
        ),
    )
    parts = [
        *small_parts(),
        Part(path="tflite-int8/model.tflite", media_type=media_types.WEIGHTS, data=b"tf"),
    ]
    write_bundle(tmp_path / "a.edgepack", small_contract(variants=variants), parts)
    bundle = open_bundle(tmp_path / "a.edgepack")

    config = json.loads(bundle.read_blob(bundle.manifest.config.digest))

    assert {"format": "mixed", "precision": "mixed"} == config["config"]


def test_the_index_and_the_signature_are_oci_documents(bundle, tmp_path):
    """The signature names the model as its subject and has OCI's empty configuration."""
    import tarfile

    with tarfile.open(tmp_path / "a.edgepack") as tar:
        index = json.load(tar.extractfile("index.json"))
        layout = json.load(tar.extractfile("oci-layout"))
    signature = json.loads(bundle.read_blob(bundle.signatures[0].digest))

    jsonschema.validate(index, OCI_INDEX)
    jsonschema.validate(signature, OCI_MANIFEST)
    assert {"imageLayoutVersion": "1.0.0"} == layout
    assert [bundle.digest, bundle.signatures[0].digest] == [
        item["digest"] for item in index["manifests"]
    ]
    assert bundle.digest == signature["subject"]["digest"]
    assert "application/vnd.oci.empty.v1+json" == signature["config"]["mediaType"]


def test_the_blobs_of_a_manifest_are_what_is_fetched_next(bundle):
    """Manifest by manifest, a device learns of every blob of the bundle."""
    fetched = {bundle.manifest_blob}
    fetched |= set(blobs_of_manifest(bundle.read_blob(bundle.digest)))
    for signature in bundle.signatures:
        fetched |= {signature.manifest, *blobs_of_manifest(bundle.read_blob(signature.digest))}

    assert set(bundle.blobs()) == fetched


OTHER = descriptor(b"other", media_types.DOC, annotations={media_types.FILEPATH_ANNOTATION: "x"})


def _path(path):
    def edit(manifest):
        manifest["layers"][1]["annotations"][media_types.FILEPATH_ANNOTATION] = path

    return edit


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda m: m.update(schemaVersion=1), ManifestError),
        (lambda m: m.update(mediaType=media_types.INDEX), ManifestError),
        (lambda m: m.pop("mediaType"), ManifestError),
        (lambda m: m.update(artifactType="text/plain"), ManifestError),
        (lambda m: m.update(manifests=[]), ManifestError),
        (lambda m: m.pop("config"), ManifestError),
        (lambda m: m["config"].update(mediaType="text/plain"), ManifestError),
        (lambda m: m.update(layers=[]), ManifestError),
        (lambda m: m.update(layers={}), ManifestError),
        (lambda m: m.update(layers=m["layers"] * 300), ManifestError),
        (lambda m: m["layers"].reverse(), ManifestError),
        (lambda m: m["layers"].append({**m["layers"][0]}), ManifestError),
        (lambda m: m["layers"][0].update(mediaType=media_types.DOC), ManifestError),
        (lambda m: m["layers"][1].pop("annotations"), ManifestError),
        (
            lambda m: m["layers"][1].update(mediaType="application/vnd.cncf.model.doc.v1.tar"),
            ManifestError,
        ),
        (_path("a b"), ManifestError),
        (_path(""), ManifestError),
        (_path("a//b"), ManifestError),
        (_path("./a"), ManifestError),
        (_path("a/."), ManifestError),
        (_path("-rf"), ManifestError),
        (_path("a."), ManifestError),
        (_path("a" * 101), ManifestError),
        (_path("/".join("abcdefghi")), ManifestError),
        (_path("é"), ManifestError),
        (_path("a\0b"), ManifestError),
        (_path("../a"), TraversalError),
        (_path("a/../../b"), TraversalError),
        (_path("/a"), TraversalError),
        (_path("..\\a"), TraversalError),
        (_path("C:/a"), TraversalError),
        (_path("Golden.Safetensors"), DuplicateError),
        (_path("onnx-fp32"), DuplicateError),
        (_path("golden.safetensors/x"), DuplicateError),
        (
            lambda m: m["layers"].append({**OTHER, "digest": m["layers"][1]["digest"]}),
            DuplicateError,
        ),
        (lambda m: m["layers"].append({**OTHER, "digest": m["config"]["digest"]}), DuplicateError),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(tmp_path, edit, error):
    """Each breach by its own class."""
    path = Crafted(edit_manifest=edit).write(tmp_path / "bad.edgepack")

    with pytest.raises(error) as caught:
        open_bundle(path)

    assert error is type(caught.value)


def test_unknown_keys_of_a_manifest_are_ignored(tmp_path):
    """A later writer may annotate; the digest covers it all the same."""
    path = Crafted(edit_manifest=lambda m: m.update(annotations={"a": "b"}, later=1)).write(
        tmp_path / "a.edgepack"
    )

    assert "pump" == open_bundle(path).contract.name


def test_a_descriptor_with_another_size_is_refused(tmp_path):
    """A size is as binding as a digest."""
    path = Crafted(edit_manifest=lambda m: m["layers"][1].update(size=8)).write(
        tmp_path / "bad.edgepack"
    )

    with pytest.raises(DigestError, match="must have 8 bytes, got 7"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["descriptor"].update(name="fan"), "name must be 'pump', got 'fan'"),
        (lambda c: c["descriptor"].update(version="9.9.9"), "version must be '1.2.3'"),
        (lambda c: c.update(descriptor=[]), "name must be 'pump', got None"),
        (lambda c: c["modelfs"].update(diffIds=[]), "diffIds must be the digests"),
        (lambda c: c.pop("modelfs"), "diffIds must be the digests"),
    ],
)
def test_a_configuration_that_shows_another_model_is_refused(tmp_path, edit, message):
    """What a registry shows of a bundle is what a device runs."""
    path = Crafted(edit_config=edit).write(tmp_path / "bad.edgepack")

    with pytest.raises(ManifestError, match=message):
        open_bundle(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"golden": "none.safetensors"}, "names the file 'none.safetensors', which the bundle"),
        ({"reference": "none.json"}, "names the file 'none.json'"),
        ({"variants": (small_variant(files=("onnx-fp32/none",)),)}, "names the file 'onnx-fp32/no"),
        ({"variants": (small_variant(size_bytes=3),)}, "size_bytes must be 22, got 3"),
    ],
)
def test_contract_and_files_belong_together(tmp_path, changes, message):
    """A contract cannot promise files that are not there, or other sizes."""
    path = Crafted(contract=small_contract(**changes)).write(tmp_path / "bad.edgepack")

    with pytest.raises(ContractError, match=message):
        open_bundle(path)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda s: s.pop("subject"), ManifestError),
        (lambda s: s["subject"].update(mediaType=media_types.INDEX), ManifestError),
        (lambda s: s["subject"].update(digest="sha256:" + "0" * 64), ForeignSignatureError),
        (lambda s: s["subject"].update(size=1), ForeignSignatureError),
        (lambda s: s["config"].update(mediaType="text/plain"), ManifestError),
        (lambda s: s.update(config=descriptor(b"{ }", media_types.EMPTY)), ManifestError),
        (lambda s: s.update(layers=[]), ManifestError),
        (lambda s: s.update(layers=s["layers"] * 2), ManifestError),
        (lambda s: s["layers"][0].update(mediaType=media_types.DOC), ManifestError),
        (lambda s: s.update(layers=[descriptor(b"{}", media_types.ENVELOPE)]), DuplicateError),
        (lambda s: s.update(artifactType=media_types.MODEL_ARTIFACT), ManifestError),
    ],
)
def test_a_signature_manifest_that_breaks_a_rule_is_refused(tmp_path, edit, error):
    """Each breach by its own class; a signature of another bundle is one of them."""
    path = Crafted(envelopes=[b"envelope"], edit_signature=edit).write(tmp_path / "bad.edgepack")

    with pytest.raises(error) as caught:
        open_bundle(path)

    assert error is type(caught.value)


def test_a_file_cannot_be_a_signature_as_well(tmp_path):
    """Every blob has one part to play."""
    path = Crafted(envelopes=[b"# Pump\n"]).write(tmp_path / "bad.edgepack")

    with pytest.raises(DuplicateError, match="is a file and a signature"):
        open_bundle(path)


def test_a_file_of_two_braces_may_be_signed(tmp_path):
    """OCI's empty document, which every signature names, may be a file too."""
    parts = [*small_parts(), Part(path="notes.json", media_type=media_types.DOC, data=b"{}")]
    write_bundle(tmp_path / "a.edgepack", small_contract(), parts)

    sign_bundle(tmp_path / "a.edgepack", RELEASE_KEY, sequence=1)

    assert b"{}" == open_bundle(tmp_path / "a.edgepack").read("notes.json")


def test_what_is_no_manifest_names_no_blobs():
    """A fetcher refuses it before it fetches anything more."""
    with pytest.raises(ManifestError):
        blobs_of_manifest(dump({"schemaVersion": 2, "layers": []}))


def test_a_blob_is_described_by_digest_and_size():
    """The digest is SHA-256 in lower-case hex."""
    assert (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        0,
    ) == (describe(b"").digest, describe(b"").size_bytes)
