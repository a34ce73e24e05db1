"""A device maps the weights of a large model from its store instead of reading them."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from support.large_weights import WIDTH, stored, write_large

from edgepack.agent.config import DriftConfig
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.transitions import Phase
from edgepack.agent.serve.registry import Registry, _load
from edgepack.bundle.errors import DigestError
from edgepack.wire.messages import Release


def installed_in(folder: Path, *, layers: int, width: int) -> tuple[Path, Installed, Path]:
    """The store's folder, what is installed in it, and the weights' file."""
    bundle = write_large(folder, layers=layers, width=width)
    store = folder / "store"
    place = stored(bundle, store).locate(bundle.contract.variants[0].files[1])
    assert place is not None
    release = Release(digest=bundle.digest, version="1.0.0", sequence=1)
    return store, Installed(release=release, variant="onnx-fp32"), place


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, Installed, Path]:
    return installed_in(tmp_path, layers=20, width=WIDTH)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_agent_serves_is_mapped_from_its_store(tmp_path):
    """The blob of 36 MB is among the process's mappings while the model answers."""
    folder, installed, weights = installed_in(tmp_path, layers=9, width=1024)
    model, _ = _load(installed, folder)
    with model:
        mapped = Path("/proc/self/maps").read_text()
        model.predict({"x": np.ones((1, 1024), np.float32)})

    assert str(weights) in mapped


def test_collecting_a_blob_that_is_mapped_harms_no_answer(store):
    """The old model answers on while its files are deleted."""
    folder, installed, weights = store
    model, _ = _load(installed, folder)
    x = {"x": np.ones((1, WIDTH), np.float32)}
    with model:
        before = model.predict(x)["y"]
        weights.unlink()
        np.testing.assert_array_equal(before, model.predict(x)["y"])


def test_a_damaged_store_is_found_when_the_agent_loads(store):
    """A flipped byte in the weights does not reach the engine."""
    folder, installed, weights = store
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x80
    weights.chmod(0o644)
    weights.write_bytes(data)

    with pytest.raises(DigestError, match="has the digest"):
        _load(installed, folder)


def test_a_store_is_hashed_again_after_an_unclean_stop_only(store):
    """A load of 100 MB must not wait for its digest each time; sizes are always compared."""
    folder, installed, weights = store
    slot = Slot(name="large", phase=Phase.CONFIRMED, active=installed, confirmed=installed)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x80
    weights.chmod(0o644)
    weights.write_bytes(data)

    def serve(*, unclean: bool) -> None:
        registry = Registry(DriftConfig())
        registry.distrusts_disk = unclean
        try:
            asyncio.run(registry.serve(slot, folder))
        finally:
            registry.close()

    serve(unclean=False)
    with pytest.raises(DigestError, match="has the digest"):
        serve(unclean=True)
    weights.write_bytes(data[:-1])
    with pytest.raises(DigestError, match="bytes, got"):
        serve(unclean=False)
