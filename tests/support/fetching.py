"""A fetcher round the sources that a test names, and bundles to fetch."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepack.agent.config import FetchConfig
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.device_facts import Device
from edgepack.agent.install.fetch import Fetched, Fetcher
from edgepack.agent.install.sources.find import Sources
from edgepack.bundle import open_bundle, open_layout
from edgepack.fleet import desired_model
from edgepack.wire.desired import DesiredModel
from edgepack.wire.throttle import Throttle


def model_of(bundle: Path, *sources: str) -> DesiredModel:
    """The entry of a desired state that asks for a bundle's file from those sources."""
    return desired_model(open_bundle(bundle), sources)


def fetcher(
    state: Path,
    *,
    link: Any = None,
    config: FetchConfig | None = None,
    throttle: Throttle | None = None,
    max_bundle_bytes: int = 100_000_000,
    device: Device | None = None,
) -> Fetcher:
    """A fetcher into a state folder, as after a restart of the agent."""
    blobs = BlobStore(state)
    blobs.clear_staging()
    sources = Sources(
        link=link,
        prefix="p",
        config=replace(config or FetchConfig(), proxy="") if config is None else config,
        throttle=throttle,
        max_bundle_bytes=max_bundle_bytes,
    )
    return Fetcher(blobs, sources, device or Device(blobs.staging, (), None))


def fetch(state: Path, model: DesiredModel, **how: Any) -> Fetched:
    """Fetch a bundle, and check that it is whole."""
    fetched = asyncio.run(fetcher(state, **how).fetch(model))
    open_layout(fetched.staging, model.digest, signatures=fetched.signatures)
    return fetched


def store(state: Path, fetched: Fetched, model: DesiredModel) -> None:
    """Keep what was fetched, as an install that ends well does."""
    bundle = open_layout(fetched.staging, model.digest, signatures=fetched.signatures)
    BlobStore(state).adopt(fetched.staging, [blob.digest for blob in bundle.blobs()])


def parts(state: Path) -> dict[str, int]:
    """Sizes of the blobs that have not come whole, by digest."""
    folder = state / "staging" / "fetched"
    return {path.stem: path.stat().st_size for path in folder.rglob("*.part")}
