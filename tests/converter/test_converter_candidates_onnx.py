"""What is tried for an ONNX file."""

import subprocess
import sys

import pytest

from edgepack.converter.candidates_onnx import candidates
from edgepack.converter.quantize_onnx import check
from edgepack.converter.sources.source import FileSummary


def summary(*operators: str, weights: int = 20_000) -> FileSummary:
    return FileSummary(opsets={"": 17}, operators=operators, weights=weights, ir_version=8)


@pytest.mark.parametrize("operators", [("ai.onnx::Conv", "ai.onnx::Gemm"), ("ai.onnx::MatMul",)])
def test_every_candidate_is_known_safe_and_named_once(operators):
    """Static wishes saturate nowhere: 7 bits, or unsigned weights."""
    found = candidates(summary(*operators))
    assert len(found) == len({name for name, _ in found}) == len({wish for _, wish in found})
    for name, wish in found:
        check(wish)
        assert name.startswith("onnx-")
        assert wish.scheme == "fp16" or wish.reduce_range or wish.weight == "u8"


def test_dynamic_comes_early_where_it_is_fast():
    """Second for dense networks, behind all static ones for convolutions."""
    dense = [wish.scheme for _, wish in candidates(summary("ai.onnx::MatMul"))]
    convolutions = [wish.scheme for _, wish in candidates(summary("ai.onnx::Conv"))]

    assert 1 == dense.index("dynamic")
    assert ["dynamic", "fp16"] == convolutions[-2:]


def test_without_weights_nothing_is_tried():
    """Trees have nothing to quantize."""
    assert () == candidates(summary("ai.onnx.ml::TreeEnsembleClassifier", weights=0))


def test_importing_it_imports_nothing_heavy():
    """It runs in the user's process."""
    code = (
        "import sys, edgepack.converter.candidates_onnx;"
        "print(any(m in sys.modules for m in ('onnx', 'onnxruntime', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()
