"""From a bundle to a model that answers."""

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from edgepack.bundle import Bundle
from edgepack.bundle.contract import Contract, Variant
from edgepack.runtime.adapter import ordered, to_open
from edgepack.runtime.engine import Engine, MappingEngine, Session
from edgepack.runtime.engines import engine_named
from edgepack.runtime.errors import VariantError
from edgepack.runtime.model import Model
from edgepack.runtime.options import SessionOptions

if TYPE_CHECKING:
    from edgepack.trust import Root


class ModelSource(Protocol):
    """What a model is loaded from: an `edgepack.bundle.Bundle`, or what a test makes."""

    @property
    def digest(self) -> str:
        """The bundle's digest, "sha256:…"."""

    @property
    def contract(self) -> Contract:
        """What the bundle promises."""

    def read(self, path: str) -> bytes:
        """Read one part by its path in the bundle, its digest checked."""


def load(
    source: str | os.PathLike[str] | ModelSource,
    *,
    variant: str | None = None,
    options: SessionOptions | None = None,
    root: "Root | None" = None,
    hash_mapped: bool = True,
) -> Model:
    """Load a model from a bundle.

    Args:
        source: A bundle file's path, or an opened bundle.
        variant: Name of the form to run; by default the contract's first.
        options: How to run; by default one thread, which suits a small device.
        root: If given, the bundle must be signed as it demands.
        hash_mapped: False takes files that can be mapped as they lie, without reading them once
            to compare their digest: for a store that was hashed when it was filled, and where
            nobody else writes.

    Raises:
        BundleError: The file is not a bundle, or not one that `root` trusts.
        VariantError: The bundle has no such variant.
        EngineError: The engine is missing here, cannot run this model, or failed.
        TypeError: `root` was given with a source that is not a bundle.
    """
    if isinstance(source, str | os.PathLike):
        from edgepack.bundle import open_bundle  # a device opens its store instead

        source = open_bundle(Path(source))
    if root is not None:
        if not isinstance(source, Bundle):
            raise TypeError(f"source must be a Bundle to be verified, got {type(source).__name__}")
        from edgepack.bundle import verify_bundle  # a device verified when it installed

        verify_bundle(source, root)
    contract = source.contract
    chosen = ordered(contract, choose_variant(contract, variant))
    engine = engine_named(chosen.engine.engine)
    engine.check(chosen)
    session = _open(
        engine, source, to_open(chosen), options or SessionOptions(), hash_mapped=hash_mapped
    )
    return Model(contract, chosen, session, digest=source.digest)


def _open(
    engine: Engine,
    source: ModelSource,
    variant: Variant,
    options: SessionOptions,
    *,
    hash_mapped: bool,
) -> Session:
    """Map the files of a large model where they lie, if they can be; read them otherwise."""
    if isinstance(source, Bundle) and isinstance(engine, MappingEngine) and engine.maps(variant):
        places = [source.locate(path, hash_it=hash_mapped) for path in variant.files]
        first = places[0]
        if first is not None and all(map(_keeps_name, places[1:], variant.files[1:])):
            return engine.open_on_disk(first, variant, options)
    files = {path: source.read(path) for path in variant.files}
    return engine.open(files, variant, options)


def _keeps_name(place: Path | None, path: str) -> bool:
    """Whether a file is called on disk as in the bundle: the model looks for that name."""
    return place is not None and place.name == PurePosixPath(path).name


def choose_variant(contract: Contract, name: str | None) -> Variant:
    """Find a variant by name; without a name, the contract's first.

    Raises:
        VariantError: The bundle has no such variant.
    """
    if name is None:
        return contract.variants[0]
    for variant in contract.variants:
        if variant.name == name:
            return variant
    names = ", ".join(variant.name for variant in contract.variants)
    raise VariantError(f"variant must be one of {names}, got {name[:80]!r}")
