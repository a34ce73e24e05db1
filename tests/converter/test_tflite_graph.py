"""TFLite files in the converter: a summary, the tensors to bind, damage in one line."""

import numpy as np
import pytest
from support.tflite_files import Op, Tensor, linear_file, quantized_file, tflite_bytes

from edgepack.bundle.contract import Datatype
from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.tflite_graph import summarise, tensors_of


def test_operators_and_weights_are_counted():
    """Weights are what int8 would shrink: constant float matrices, not biases or integers."""
    summary = summarise(linear_file(np.eye(30, 20)))

    assert {"FULLY_CONNECTED": 1} == summary.opsets
    assert ("tflite::FULLY_CONNECTED",) == summary.operators
    assert 600 == summary.weights
    assert 0 == summarise(quantized_file()).weights


def test_a_custom_operator_is_named_as_the_file_names_it():
    """So that the contract tells what no interpreter may have."""
    file = tflite_bytes(
        [Tensor(name="x", shape=(1, 3)), Tensor(name="y", shape=(1, 3))],
        [Op(kind="", custom="FlexErfinv", inputs=["x"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    summary = summarise(file)

    assert {"FlexErfinv": 1} == summary.opsets
    assert ("tflite-custom::FlexErfinv",) == summary.operators


def test_tensors_have_the_batch_and_the_quantization_of_the_file():
    """Free and fixed batches; scale and zero point of quantized integers only."""
    (x,), (y,) = tensors_of(linear_file(np.eye(3, 2)))
    assert ("x", Datatype.FP32, (-1, 3), None) == (x.name, x.datatype, x.shape, x.batch)
    assert (None, None) == (y.scale, y.zero_point)

    (x,), _ = tensors_of(quantized_file(batch=4))
    assert (Datatype.INT8, 4, 0.5, 3) == (x.datatype, x.batch, x.scale, x.zero_point)


@pytest.mark.parametrize("data", [b"", b"x" * 100, linear_file(np.eye(3, 2))[:300]])
def test_a_damaged_file_is_one_line(data):
    """Whatever is wrong with it."""
    with pytest.raises(ModelFileError, match="the TFLite file is damaged") as caught:
        summarise(data)
    assert "\n" not in str(caught.value)


def test_inputs_of_the_same_name_cannot_be_bound():
    """A contract tells them apart by their names."""
    tensors = [Tensor(name=name, shape=(1, 2)) for name in ("a", "b", "y")]
    op = Op(kind="ADD", inputs=["a", "b"], outputs=["y"], options_class="AddOptions")
    data = tflite_bytes(tensors, [op], ["a", "b"], ["y"])
    twice = tflite_bytes(tensors, [op], ["a", "a"], ["y"])

    assert ["a", "b"] == [tensor.name for tensor in tensors_of(data)[0]]
    with pytest.raises(UnsupportedModelError, match=r"every input .* must have a name of its own"):
        tensors_of(twice)
