"""The same file on the other kernel family: what saturates is seen, what cannot does not."""

import numpy as np
import pytest
from onnx import helper
from onnx_nets import answers, conv_net, images, model_bytes

from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec, Tolerances
from edgepack.converter import kernel_family
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import WorkerError
from edgepack.converter.kernel_family import answers_on_haswell, why_not_here
from edgepack.converter.parity import HeldOut
from edgepack.converter.quantize_onnx import quantize_onnx
from edgepack.converter.search import other_processor
from edgepack.converter.search.other_processor import look_there, may_saturate
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tools.tool import Quantization

emulated = pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or "")


def saturating_net() -> tuple[bytes, dict[str, np.ndarray]]:
    """Large activations beside each other times weights of one sign: every pair overflows."""
    weights = np.full((64, 8), 1.0)
    weights[::2, 1::2] = -0.5
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    file = model_bytes(nodes, [("x", (None, 64))], [("y", (None, 8))], {"w": weights})
    x = np.random.default_rng(0).uniform(0.9, 1, size=(16, 64)).astype(np.float32)
    x[0] = 0
    return file, {"x": x}


@emulated
def test_full_range_that_saturates_answers_otherwise_there():
    """Weights of 8 bits lose most of the sum; weights of 7 bits, and unsigned ones, do not."""
    file, feeds = saturating_net()
    (expected,) = answers(file, feeds)
    differences = {}
    for name, wish in (
        ("full", Quantization(scheme="static")),
        ("reduced", Quantization(scheme="static", reduce_range=True)),
        ("unsigned", Quantization(scheme="static", weight="u8")),
    ):
        data, _ = quantize_onnx(file, feeds, wish)
        there = answers_on_haswell(data, feeds)
        assert there is not None
        differences[name] = float(np.abs(there["y"] - expected).max())

    assert differences["full"] > 10
    assert differences["reduced"] < 1
    assert differences["unsigned"] < 1


@emulated
def test_a_fixed_batch_is_cut_and_filled():
    """Five rows through a batch of two give five answers."""
    file = conv_net(batch=2)
    feeds = {"image": images(5)}
    there = answers_on_haswell(file, feeds)

    assert there is not None
    here = np.concatenate([answers(file, {"image": feeds["image"][i : i + 2]})[0] for i in (0, 2)])
    np.testing.assert_allclose(here, there["probabilities"][:4], atol=1e-5)
    assert (5, 4) == there["probabilities"].shape


@emulated
def test_a_file_that_the_engine_refuses_is_one_line():
    """So is what takes too long."""
    with pytest.raises(WorkerError, match="on an emulated Haswell: ") as caught:
        answers_on_haswell(b"nonsense", {"x": np.zeros((1, 1), np.float32)})
    assert "\n" not in str(caught.value)
    with pytest.raises(WorkerError, match=r"no answer in 0\.01 s"):
        answers_on_haswell(b"", {"x": np.zeros((1, 1), np.float32)}, timeout_s=0.01)


def test_without_an_emulator_there_is_no_answer_and_a_reason(monkeypatch):
    """The package to install is named; other machines say what they are."""
    monkeypatch.setattr(kernel_family.sys, "platform", "linux")
    monkeypatch.setattr(kernel_family.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(kernel_family.shutil, "which", lambda name: None)
    assert "qemu-x86_64 is not installed (Debian: apt-get install qemu-user)" == why_not_here()
    assert answers_on_haswell(b"", {}) is None
    monkeypatch.setattr(kernel_family.platform, "machine", lambda: "aarch64")
    assert "a Haswell is only emulated on Linux on x86-64" == why_not_here()


def looked_at(wish: Quantization) -> tuple[str | None, str]:
    """What the look at the other processor says of a net that saturates, quantized so."""
    file, feeds = saturating_net()
    (expected,) = answers(file, feeds)
    data, summary = quantize_onnx(file, feeds, wish)
    draft = Draft(
        name="m",
        version="1.0.0",
        task=Task.TRANSFORM,
        inputs=(TensorSpec(name="rows", datatype=Datatype.FP32, shape=(-1, 64)),),
        outputs=(TensorSpec(name="sums", datatype=Datatype.FP32, shape=(-1, 8)),),
        class_names=(),
        tolerances=Tolerances(),
    )
    facts = ExportFacts(
        inputs=(TensorBinding(name="rows", tensor="x", dtype=Datatype.FP32),),
        outputs=(TensorBinding(name="sums", tensor="y", dtype=Datatype.FP32),),
        summary=summary,
    )
    candidate = Candidate(
        name="onnx-int8", precision="int8", exported=Exported(data=data, facts=facts)
    )
    held_out = HeldOut(inputs={"rows": feeds["x"]}, expected={"sums": expected}, truth=None)
    return look_there(draft, candidate, held_out)


@emulated
def test_what_saturates_there_is_not_packed():
    """A kind of int8 that was wished by hand is judged on the other processor too."""
    refused, _ = looked_at(Quantization(scheme="static"))
    assert refused is not None
    assert refused.startswith("on an emulated Haswell R² drops by ")
    refused, found = looked_at(Quantization(scheme="static", reduce_range=True))
    assert refused is None
    assert "16 rows" in found


def test_where_nothing_is_emulated_that_is_said(monkeypatch):
    """The candidate stays, and its line tells what is not known."""
    monkeypatch.setattr(other_processor, "why_not_here", lambda: "qemu is not installed")
    refused, found = looked_at(Quantization(scheme="static"))
    assert refused is None
    assert found.endswith("are not known: qemu is not installed")


@pytest.mark.parametrize(
    ("file_format", "wish", "expected"),
    [
        ("onnx", Quantization(scheme="static"), True),
        ("onnx", Quantization(scheme="static", activation="s8"), True),
        ("onnx", Quantization(scheme="static", reduce_range=True), False),
        ("onnx", Quantization(scheme="static", weight="u8"), False),
        ("onnx", Quantization(scheme="dynamic"), False),
        ("tflite", Quantization(scheme="static", activation="s8"), False),
    ],
)
def test_only_signed_weights_of_8_bits_need_the_look(file_format, wish, expected):
    """Everything else answers alike on every processor."""
    assert expected == may_saturate(file_format, wish)
