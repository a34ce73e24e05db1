"""The model configuration of the CNCF model specification: what other tools show of a bundle.

Nothing of ours reads it for anything else, and it holds only what the specification's schema
allows; everything more is in the contract.
"""

from pathlib import PurePosixPath

from edgepack.bundle.contract import Contract
from edgepack.bundle.documents import parse_object
from edgepack.bundle.errors import ManifestError
from edgepack.bundle.limits import MAX_CONFIG_BYTES
from edgepack.bundle.manifest import Layer, Manifest
from edgepack.trust import strict_json


def render_model_config(contract: Contract, layers: tuple[Layer, ...]) -> bytes:
    """Write the configuration that goes with a contract, canonically.

    `createdAt` is left out: nothing in a bundle holds a clock.
    """
    formats = {PurePosixPath(variant.files[0]).suffix[1:] for variant in contract.variants}
    precisions = {variant.precision for variant in contract.variants}
    return strict_json.render(
        {
            "descriptor": {"name": contract.name, "version": contract.version},
            "config": {
                "format": formats.pop() if len(formats) == 1 else "mixed",
                "precision": precisions.pop() if len(precisions) == 1 else "mixed",
            },
            "modelfs": {"type": "layers", "diffIds": [layer.blob.digest for layer in layers]},
        }
    )


def check_model_config(data: bytes, contract: Contract, manifest: Manifest) -> None:
    """Refuse a configuration that shows another model than the contract.

    Raises:
        BundleDocumentError, OversizedDocumentError: It is not such a JSON document.
        ManifestError: Name, version or files are others.
    """
    document = parse_object(data, what="model config", max_bytes=MAX_CONFIG_BYTES)
    descriptor, files = document.get("descriptor"), document.get("modelfs")
    shown = descriptor if isinstance(descriptor, dict) else {}
    for key, value in (("name", contract.name), ("version", contract.version)):
        if shown.get(key) != value:
            raise ManifestError(
                f"model config: {key} must be {value!r}, got {repr(shown.get(key))[:80]}"
            )
    digests = [layer.blob.digest for layer in manifest.layers]
    if not isinstance(files, dict) or files.get("diffIds") != digests:
        raise ManifestError("model config: modelfs.diffIds must be the digests of the layers")
