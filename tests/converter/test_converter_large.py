"""A model of more than a megabyte, from its file to a device's store."""

import re
from pathlib import Path

import numpy as np
import pytest
from converter_models import Table, opened, run
from support.large_weights import WIDTH, network, stored

from edgepack.converter import Precision
from edgepack.runtime import load
from edgepack.runtime.golden import parse_golden
from edgepack.runtime.selftest import run_selftest


@pytest.fixture
def rows(tmp_path: Path) -> Table:
    values = np.random.default_rng(2).normal(size=(160, WIDTH)).astype(np.float32)
    path = tmp_path / "rows.npy"
    np.save(path, values)
    return Table(values, None, path, "")


def test_large_weights_are_packed_apart_and_pass_the_self_test_from_a_store(
    rows: Table, tmp_path: Path
) -> None:
    """The model file names the second by its digest, so that a device finds it and maps it."""
    model = tmp_path / "large.onnx"
    model.write_bytes(network(layers=20))
    report = run(model, rows, tmp_path, precision=Precision.FP32, label=None)
    bundle = opened(report)
    variant = next(item for item in bundle.contract.variants if item.name == "onnx-fp32")

    assert 2 == len(variant.files)
    assert re.fullmatch(r"onnx-fp32/[0-9a-f]{64}", variant.files[1])
    assert bundle.layer(variant.files[1]).blob.hex == variant.files[1].partition("/")[2]
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    for source in (bundle, stored(bundle, tmp_path / "store")):
        with load(source, variant=variant.name) as loaded:
            assert run_selftest(loaded, golden).passed
