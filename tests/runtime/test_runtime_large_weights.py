"""Weights in a file of their own: read from an archive, mapped from a store, checked in both."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.large_weights import WIDTH, network, stored, write_large

from edgepack.bundle.errors import DigestError
from edgepack.runtime import EngineError, SessionOptions, UnsupportedModelError, load
from edgepack.runtime.engines import onnxruntime as engine_module

X = {"x": np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_large(tmp_path_factory.mktemp("large"))


@pytest.fixture
def store(bundle, tmp_path):
    return stored(bundle, tmp_path / "store")


def expected() -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(network(layers=20), providers=["CPUExecutionProvider"])
    return session.run(None, X)[0]


def weights_of(bundle) -> Path:
    place = bundle.locate(bundle.contract.variants[0].files[1])
    assert place is not None
    return place


def test_an_archive_and_a_store_answer_alike(bundle, store):
    """And as the file did before its weights were taken out."""
    for source in (bundle, store):
        with load(source) as model:
            np.testing.assert_allclose(expected(), model.predict(X)["y"], rtol=1e-5)


@pytest.mark.parametrize("repack", [True, False])
def test_weights_as_they_lie_answer_as_repacked_ones(bundle, store, repack):
    """Up to rounding."""
    for source in (bundle, store):
        with load(source, options=SessionOptions(repack=repack)) as model:
            np.testing.assert_allclose(expected(), model.predict(X)["y"], rtol=1e-5)


def test_a_flipped_byte_is_found_before_the_engine_sees_it(store):
    """The store was trusted when it was opened, and is still hashed when it is loaded."""
    path = weights_of(store)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)

    with pytest.raises(DigestError, match="has the digest"):
        load(store)


def test_missing_and_shortened_weights_are_found(store):
    """Neither reaches the engine."""
    path = weights_of(store)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    with pytest.raises(DigestError, match="bytes, got"):
        load(store)


def test_the_store_is_mapped_and_the_archive_is_read(bundle, store, monkeypatch):
    """The engine is given a place only where nobody changes files."""
    ways = []
    for name in ("open", "open_on_disk"):
        monkeypatch.setattr(
            engine_module.OnnxRuntimeEngine, name, lambda *args, name=name: ways.append(name)
        )
    for source in (bundle, store):
        with pytest.raises(AttributeError):  # there is no session
            load(source).predict(X)

    assert ["open", "open_on_disk"] == ways


def test_a_file_that_is_called_otherwise_on_disk_is_read(bundle, store):
    """Then the engine would not find it beside the model."""
    variant = store.contract.variants[0]
    place = store.locate(variant.files[1])
    from edgepack.runtime.loading import _keeps_name

    assert _keeps_name(place, variant.files[1])
    assert not _keeps_name(place, "onnx-fp32/model.onnx.data")
    assert not _keeps_name(None, variant.files[1])


def test_an_engine_that_takes_no_weights_from_memory_gets_them_from_a_folder(bundle, monkeypatch):
    """That is one before 1.24; the folder is gone afterwards."""
    import tempfile

    real, made = engine_module.session_options, []

    class Old:
        def __init__(self, options) -> None:
            object.__setattr__(self, "options", options)

        def __getattr__(self, name: str):
            if name == "add_external_initializers_from_files_in_memory":
                raise AttributeError(name)
            return getattr(self.options, name)

    def sessions(model, settings, variant):
        made.append(model)
        return real_session(model, settings.options, variant)

    real_session = engine_module._session
    monkeypatch.setattr(engine_module, "session_options", lambda *args: Old(real(*args)))
    monkeypatch.setattr(engine_module, "_session", sessions)
    with load(bundle) as model:
        np.testing.assert_allclose(expected(), model.predict(X)["y"], rtol=1e-5)
    assert str(made[0]).startswith(tempfile.gettempdir())
    assert not made[0].parent.exists()


def test_weights_in_another_folder_are_refused(bundle):
    """The model could not name them."""
    variant = dataclasses.replace(bundle.contract.variants[0], files=("a/model.onnx", "b/weights"))
    with pytest.raises(UnsupportedModelError, match="must be in 'a'"):
        engine_module.ENGINE.open(
            {"a/model.onnx": b"", "b/weights": b""}, variant, SessionOptions()
        )


def test_a_model_whose_weights_are_not_given_is_one_line(bundle):
    """An engine that looks for them finds nothing."""
    variant = bundle.contract.variants[0]
    alone = dataclasses.replace(variant, files=variant.files[:1])
    files = {path: bundle.read(path) for path in alone.files}
    with pytest.raises(EngineError, match="cannot load") as caught:
        engine_module.ENGINE.open(files, alone, SessionOptions())
    assert "\n" not in str(caught.value)


_MEMORY = """
import sys
from pathlib import Path
from edgepack.bundle import open_layout
from edgepack.runtime import SessionOptions, load
from edgepack.runtime.engines import engine_named

def private_bytes():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.partition("Anonymous:")[2].split()[0]) * 1024

bundle = open_layout(sys.argv[1], sys.argv[2], hash_blobs=False)
engine_named("onnxruntime").prepare()
before = private_bytes()
model = load(bundle, options=SessionOptions(repack=sys.argv[3] == "repack"))
print(private_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_mapped_weights_take_no_memory_of_their_own(tmp_path):
    """40 MB on disk, under 8 MB private; repacked they are all in memory."""
    bundle = write_large(tmp_path, layers=10, width=1024)
    place = tmp_path / "store"
    stored(bundle, place)
    found = {}
    for how in ("repack", "as they lie"):
        command = [sys.executable, "-c", _MEMORY, str(place), bundle.digest, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[how] = int(done.stdout)

    assert found["as they lie"] < 8e6
    assert found["repack"] > 35e6
