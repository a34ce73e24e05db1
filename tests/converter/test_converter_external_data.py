"""Large weights leave the model file, by page, and small models stay whole."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnx_nets import answers, conv_net, model_bytes
from support.large_weights import network

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.external_data import split, weights_name


def test_the_weights_begin_at_pages_and_the_name_is_their_digest():
    """Every tensor's place is a multiple of 4096 in a file that the model names."""
    model, weights = split(network(layers=20))
    assert weights is not None
    entries = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load_model_from_string(model).graph.initializer
    ]

    assert {weights_name(weights)} == {entry["location"] for entry in entries}
    assert [0] * 20 == [int(entry["offset"]) % 4096 for entry in entries]
    assert len(model) < 8192
    assert 64 == len(weights_name(weights))


def test_joined_again_it_is_the_same_model(tmp_path):
    """Any reader of ONNX finds the weights beside the file."""
    file = network(layers=20)
    model, weights = split(file)
    (tmp_path / "model.onnx").write_bytes(model)
    (tmp_path / weights_name(weights)).write_bytes(weights)
    joined = onnx.load(tmp_path / "model.onnx")
    load_external_data_for_model(joined, str(tmp_path))
    x = {"x": np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)}

    np.testing.assert_array_equal(answers(file, x)[0], answers(joined.SerializeToString(), x)[0])


def test_the_same_file_gives_the_same_bytes():
    """Twice."""
    assert split(network(layers=20)) == split(network(layers=20))


def test_small_models_stay_one_file():
    """Below 1 MB nothing is gained."""
    file = conv_net()
    assert (file, None) == split(file)
    many = {f"w{i}": np.zeros((50, 50)) for i in range(130)}  # 1.3 MB, none of 16 KB
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["y"])]
    file = model_bytes(nodes, [("x", (None, 50))], [("y", (None, 50))], many)
    assert (file, None) == split(file)


def test_weights_that_are_not_raw_bytes_leave_too():
    """Some exporters write numbers one by one."""
    matrix = np.arange(512 * 600, dtype=np.float32).reshape(512, 600)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, matrix.shape, matrix.ravel().tolist())
    assert not tensor.raw_data
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    file = onnx.load_model_from_string(
        model_bytes(nodes, [("x", (None, 512))], [("y", (None, 600))], {})
    )
    file.graph.initializer.append(tensor)
    _, weights = split(file.SerializeToString())

    assert numpy_helper.from_array(matrix).raw_data == weights


def test_nonsense_is_one_line():
    """A megabyte of it."""
    with pytest.raises(UnsupportedModelError, match="not an ONNX file"):
        split(b"\xff" * (1 << 20))
