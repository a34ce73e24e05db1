"""Loading a model: from a file, verified or not, by variant."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from runtime_models import linear_bundle
from support.tiny_bundle import write_tiny_bundle

from edgepack.bundle import BundleError, open_bundle
from edgepack.bundle.contract import TensorBinding
from edgepack.runtime import (
    EngineMissingError,
    SessionOptions,
    UnsupportedModelError,
    VariantError,
    load,
)
from edgepack.trust import PrivateKey, Root, keygen

X = np.ones((1, 4), np.float32)


def test_a_bundle_is_loaded_from_its_path_or_itself(tmp_path):
    """Both answer alike, and the model knows where it came from."""
    path = write_tiny_bundle(tmp_path)
    bundle = open_bundle(path)
    answers = []
    for source in (path, str(path), bundle):
        with load(source) as model:
            assert bundle.digest == model.digest
            assert bundle.contract == model.contract
            assert "onnx-fp32" == model.variant.name
            answers.append(model.predict({"x": X})["probabilities"].tolist())

    assert answers[0] == answers[1] == answers[2]


def test_with_a_root_only_what_it_trusts_is_loaded(tmp_path):
    """The release key's signature is enough; a stranger's or none is refused."""
    keygen(tmp_path / "keys")
    root = Root.parse((tmp_path / "keys" / "root.json").read_bytes())
    release = PrivateKey.load(tmp_path / "keys" / "release.key")
    good = write_tiny_bundle(tmp_path, key=release)
    unsigned = write_tiny_bundle(tmp_path, version="1.0.1")
    foreign = write_tiny_bundle(tmp_path, version="1.0.2", key=PrivateKey.generate())

    load(good, root=root).close()
    for path in (unsigned, foreign):
        with pytest.raises(BundleError) as caught:
            load(path, root=root)
        assert 5 == caught.value.exit_code


def test_a_root_verifies_bundles_only(tmp_path):
    """Something that is not a Bundle cannot be verified, and that is not passed over."""
    keygen(tmp_path / "keys")
    root = Root.parse((tmp_path / "keys" / "root.json").read_bytes())

    with pytest.raises(TypeError, match="must be a Bundle to be verified"):
        load(linear_bundle(np.eye(3)), root=root)


def test_an_unknown_variant_is_refused_with_those_that_exist():
    """The error lists what there is; nothing was read."""
    bundle = linear_bundle(np.eye(3))
    with pytest.raises(VariantError, match="variant must be one of onnx-fp32, got 'onnx-int8'"):
        load(bundle, variant="onnx-int8")

    assert [] == bundle.reads


def test_a_named_variant_is_loaded():
    """Only its own files are read."""
    bundle = linear_bundle(np.eye(3))
    first = bundle.contract.variants[0]
    other = dataclasses.replace(first, name="other", files=("other/model.onnx",))
    bundle.contract = dataclasses.replace(bundle.contract, variants=(first, other))
    bundle.files = {"other/model.onnx": bundle.files["onnx-fp32/model.onnx"]}
    with load(bundle, variant="other", options=SessionOptions(threads=2)) as model:
        assert "other" == model.variant.name

    assert ["other/model.onnx"] == bundle.reads


def test_bindings_must_match_the_contract():
    """A contract tensor without a binding is refused by name."""
    bundle = linear_bundle(np.eye(3))
    (variant,) = bundle.contract.variants
    stray = TensorBinding(name="z", tensor="x", dtype=variant.inputs[0].dtype)
    bundle.contract = dataclasses.replace(
        bundle.contract, variants=(dataclasses.replace(variant, inputs=(stray,)),)
    )
    with pytest.raises(UnsupportedModelError, match=r"must be for \['x'\], got \['z'\]"):
        load(bundle)


@pytest.mark.parametrize("threads", [0, -1])
def test_options_are_checked_when_they_are_made(threads):
    """A session has at least one thread."""
    with pytest.raises(ValueError, match=f"threads must be at least 1, got {threads}"):
        SessionOptions(threads=threads)


def test_importing_the_runtime_imports_no_engine():
    """A device that only verifies and installs does not pay for onnxruntime."""
    code = "import sys, edgepack.runtime; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert "False\n" == done.stdout


def test_a_missing_engine_is_one_line_that_says_what_to_install(monkeypatch):
    """Without onnxruntime the error names the extra."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineMissingError, match=r"pip install 'edgepack\[agent-o"):
        load(linear_bundle(np.eye(3)))
