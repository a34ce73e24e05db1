"""Make a bundle: the contract and the files of a model, as one archive."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path

from edgepack.bundle import media_types
from edgepack.bundle.archive import write_archive
from edgepack.bundle.contract import Contract
from edgepack.bundle.contract_codec import render_contract
from edgepack.bundle.descriptor import describe
from edgepack.bundle.errors import BundleLimitError, DuplicateError, MissingBlobError
from edgepack.bundle.limits import MAX_LAYERS
from edgepack.bundle.manifest import (
    CONTRACT_PATH,
    Layer,
    Manifest,
    check_media_type,
    render_manifest,
)
from edgepack.bundle.model_config import render_model_config
from edgepack.bundle.part_path import check_paths
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file to put into a bundle.

    Attributes:
        path: Where it lies in the bundle ("onnx-fp32/model.onnx", "README.md").
        media_type: One of `edgepack.bundle.media_types`.
        data: Its bytes.
    """

    path: str
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MemoryBlobs:
    """Blobs that are held in memory, by digest."""

    data: dict[str, bytes]

    def size_of(self, digest: str) -> int:
        """Tell a blob's size in bytes."""
        return len(self._blob(digest))

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Give a blob's bytes."""
        yield self._blob(digest)

    def _blob(self, digest: str) -> bytes:
        if digest not in self.data:
            raise MissingBlobError(f"blob {digest} is missing", digest=digest)
        return self.data[digest]


def bundle_filename(contract: Contract) -> str:
    """Tell the name that a bundle's file goes by: NAME-VERSION.edgepack."""
    return f"{contract.name}-{contract.version}.edgepack"


def write_bundle(path: str | os.PathLike[str], contract: Contract, parts: Sequence[Part]) -> str:
    """Write a bundle, unsigned; the same contract and parts always give the same bytes.

    Args:
        path: The file to write; one that is there already is replaced atomically.
        contract: Becomes `contract.json`.
        parts: The other files, in any order.

    Returns:
        The bundle digest.

    Raises:
        BundleError: Contract and parts do not make a bundle. Then nothing is written.
        BundleWriteError: The disk refused.
    """
    ordered = sorted(parts, key=lambda part: part.path)
    if len(ordered) >= MAX_LAYERS:
        raise BundleLimitError(f"a bundle has at most {MAX_LAYERS} files, got {len(ordered) + 1}")
    files = [
        Part(path=CONTRACT_PATH, media_type=media_types.CONTRACT, data=render_contract(contract)),
        *ordered,
    ]
    check_paths(tuple(part.path for part in files))
    layers = tuple(
        Layer(
            path=part.path,
            media_type=check_media_type(part.media_type),
            blob=describe(part.data),
        )
        for part in files
    )
    _check_different(layers)
    config = render_model_config(contract, layers)
    manifest = render_manifest(Manifest(config=describe(config), layers=layers))
    blobs = [config, manifest, *(part.data for part in files)]
    source = MemoryBlobs({describe(blob).digest: blob for blob in blobs})
    return write_archive(Path(path), source, describe(manifest), ()).digest


def _check_different(layers: tuple[Layer, ...]) -> None:
    seen: dict[str, str] = {}
    for layer in layers:
        other = seen.setdefault(layer.blob.digest, layer.path)
        if other != layer.path:
            raise DuplicateError(
                f"{other} and {layer.path} hold the same bytes; a bundle holds every blob once"
            )
