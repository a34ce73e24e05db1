"""The media types of a bundle: OCI's, those of the CNCF model specification, and ours."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"

MODEL_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
WEIGHTS_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
CODE = "application/vnd.cncf.model.code.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"
CONTRACT = "application/vnd.edgepack.contract.v1+json"

SIGNATURE_ARTIFACT = "application/vnd.edgepack.signature.v1+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"

MODEL_LAYERS = frozenset({WEIGHTS, WEIGHTS_CONFIG, DOC, CODE, DATASET})
OURS_PREFIX = "application/vnd.edgepack."

FILEPATH_ANNOTATION = "org.cncf.model.filepath"
REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
