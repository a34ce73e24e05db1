"""Which layers suffer, and what the engine makes of a file."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_nets import conv_net, images, model_bytes

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_quantizer.lint import lint
from edgepack.converter.onnx_quantizer.prepare import prepare
from edgepack.converter.quantize_onnx import quantize_onnx
from edgepack.converter.sources.source import Exported, ExportFacts, FileSummary
from edgepack.converter.tools.find import tool_named
from edgepack.converter.tools.tool import Quantization, ToolJob

WISH = Quantization(scheme="static", reduce_range=True, per_channel=False)
FACTS = ExportFacts(
    inputs=(), outputs=(), summary=FileSummary(opsets={}, operators=(), weights=0, ir_version=8)
)


def job_of(data: bytes, feeds=None, wish=None, **fields) -> ToolJob:
    return ToolJob(
        exported=Exported(data=data, facts=FACTS), feeds=feeds or {}, wish=wish, fields=fields
    )


def spoiled_net() -> tuple[bytes, dict[str, np.ndarray]]:
    """Three layers of which the second has one weight that is large and idle."""
    rng = np.random.default_rng(0)
    constants = {f"w{i}": rng.normal(size=(16, 16)) / 4 for i in range(3)}
    constants["w0"][:, 0] = 0  # so that the large weight makes no large activation
    constants["w1"][0, 0] = 30
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w1"], ["b"], name="spoiled"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="last"),
    ]
    file = model_bytes(nodes, [("x", (None, 16))], [("y", (None, 16))], constants)
    return file, {"x": rng.normal(size=(200, 16)).astype(np.float32)}


def test_the_layer_that_suffers_most_comes_first():
    """Its name is one that keep_float takes, and keeping it repairs the answers."""
    file, rows = spoiled_net()
    fields = tool_named("rank-onnx")(job_of(file, rows, WISH)).fields
    layers = fields["layers"]

    assert "spoiled" == layers[0]["name"]
    assert {"first", "spoiled", "last"} == {layer["name"] for layer in layers}
    assert layers == sorted(layers, key=lambda layer: layer["sqnr_db"])
    assert 0 == fields["not_measured"]
    assert layers[1]["sqnr_db"] > layers[0]["sqnr_db"] + 6
    kept = Quantization(scheme="static", reduce_range=True, keep_float=(layers[0]["name"],))
    quantize_onnx(file, rows, kept)


def test_a_reshape_behind_the_last_layer_changes_no_ranking():
    """The answers are compared at the same place, with and without a QDQ pair around it."""
    file, rows = spoiled_net()
    model = onnx.load_from_string(file)
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(helper.make_node("Reshape", ["flat", "shape"], ["y"], name="back"))
    shape = np.array([-1, 4, 4], dtype=np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, (None, 4, 4)))
    ranked = [
        tool_named("rank-onnx")(job_of(data, rows, WISH)).fields["layers"]
        for data in (file, model.SerializeToString())
    ]

    assert ["spoiled"] * 2 == [layers[0]["name"] for layers in ranked]
    assert 3 == len(ranked[1])


def test_ranking_covers_every_layer_of_a_convolutional_network():
    """Also with probabilities as the only output, and each number is finite."""
    net = conv_net(channels=16, blocks=3)
    layers = tool_named("rank-onnx")(job_of(net, {"image": images(20)}, WISH)).fields["layers"]

    names = [n.name for n in prepare(net).graph.node if n.op_type in ("Conv", "Gemm")]
    assert sorted(names) == sorted(layer["name"] for layer in layers)
    assert all(5 < layer["sqnr_db"] <= 200 for layer in layers)


def test_ranking_ends_when_its_time_is_up():
    """At least one layer is measured; the rest are counted."""
    file, rows = spoiled_net()
    fields = tool_named("rank-onnx")(job_of(file, rows, WISH, limit_s=0)).fields

    assert 1 == len(fields["layers"])
    assert 2 == fields["not_measured"]


def test_layers_that_are_kept_already_are_not_ranked():
    """Repair goes on where it stopped."""
    file, rows = spoiled_net()
    wish = Quantization(scheme="static", reduce_range=True, keep_float=("spoiled",))
    layers = tool_named("rank-onnx")(job_of(file, rows, wish)).fields["layers"]

    assert {"first", "last"} == {layer["name"] for layer in layers}


def test_ranking_takes_static_wishes_only():
    """There is nothing to measure for the others."""
    file, rows = spoiled_net()
    with pytest.raises(UnsupportedModelError, match="needs a static wish"):
        tool_named("rank-onnx")(job_of(file, rows, Quantization(scheme="dynamic")))


def test_a_well_quantized_file_has_nothing_to_complain_of():
    """Every layer runs with 8 bits, and the conversions are fused."""
    data, _ = quantize_onnx(conv_net(), {"image": images(20)}, WISH)

    assert {
        "float_operators": {},
        "left_over_qdq": 0,
        "missing_operators": [],
        "messages": [],
    } == tool_named("lint-onnx")(job_of(data)).fields


def test_float_files_are_not_blamed_for_floats():
    """There is nothing to complain of in fp32."""
    assert {} == lint(conv_net()).float_operators


def test_layers_in_float_are_counted():
    """One that was kept, and the way back to 8 bits behind it."""
    net = conv_net(blocks=3)
    names = [n.name for n in prepare(net).graph.node if n.op_type == "Conv"]
    wish = Quantization(scheme="static", reduce_range=True, keep_float=(names[1],))
    found = lint(quantize_onnx(net, {"image": images(20)}, wish)[0])

    assert {"Conv": 1} == found.float_operators
    assert 1 == found.left_over_qdq
    assert "1 Conv with weights run in float" in found.messages


def test_weights_that_are_widened_at_every_run_are_found():
    """A lone DequantizeLinear before a float product, which the engine cannot fuse."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Sin", ["d"], ["h"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wide"]),
        helper.make_node("MatMul", ["h", "wide"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "one": np.ones(1)}
    file = onnx.load_model_from_string(
        model_bytes(nodes, [("x", (None, 16))], [("y", (None, 16))], constants)
    )
    file.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(0, np.int8), "z"),
            onnx.numpy_helper.from_array(np.ones((16, 16), np.int8), "w"),
        ]
    )
    found = lint(file.SerializeToString())

    assert {"MatMul": 1} == found.float_operators
    assert 1 == found.left_over_qdq


def test_what_an_older_engine_lacks_is_named():
    """By opset for a declared version; by operator for the installed one."""
    new = conv_net(opset=22)
    assert ("opset 22 needs onnxruntime 1.21 or later",) == lint(new, (1, 17)).missing_operators
    assert () == lint(conv_net(opset=17), (1, 17)).missing_operators
    fields = tool_named("lint-onnx")(job_of(new, engine_version="1.20.1")).fields
    assert ["opset 22 needs onnxruntime 1.21 or later"] == fields["missing_operators"]
    with pytest.raises(UnsupportedModelError, match=r"must be MAJOR\.MINOR, got 'new'"):
        tool_named("lint-onnx")(job_of(new, engine_version="new"))


def test_an_operator_without_a_kernel_is_named():
    """Of an unknown domain, or of a type that the engine has no kernel for."""
    unknown = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")
    file = onnx.load_model_from_string(model_bytes([unknown], [("x", (2, 2))], [("y", (2, 2))], {}))
    file.opset_import.append(helper.make_opsetid("com.example", 1))
    assert ("com.example:Frobnicate",) == lint(file.SerializeToString()).missing_operators

    node = helper.make_node("Conv", ["x", "w"], ["y"])
    file = onnx.load_model_from_string(
        model_bytes([node], [("x", (1, 1, 4, 4))], [("y", (1, 1, 4, 4))], {})
    )
    file.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1)), "w"))
    for item in (*file.graph.input, *file.graph.output):
        item.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    assert ("Conv",) == lint(file.SerializeToString()).missing_operators


def test_damaged_files_are_one_line():
    """Neither a file nor a graph that runs."""
    for data in (b"nonsense", conv_net()[:500]):
        with pytest.raises(UnsupportedModelError) as caught:
            lint(data)
        assert "\n" not in str(caught.value)
