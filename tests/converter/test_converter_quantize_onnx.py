"""ONNX files made smaller: what every wish gives, and what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_nets import (
    LONG,
    answers,
    conv_net,
    dense_net,
    images,
    model_bytes,
    operators,
    recurrent_net,
)

from edgepack.bundle.contract import Datatype, TensorBinding
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_graph import summarise
from edgepack.converter.onnx_quantizer.prepare import prepare
from edgepack.converter.onnx_quantizer.ranges import find_ranges
from edgepack.converter.quantize_onnx import quantize_onnx
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tools.find import tool_named
from edgepack.converter.tools.tool import Quantization, ToolJob

ROWS = {"image": images(48)}
STATIC = [
    Quantization(scheme="static", activation=a, weight=w, reduce_range=r, per_channel=c)
    for (a, w), r, c in itertools.product(
        (("u8", "s8"), ("s8", "s8"), ("u8", "u8")), (False, True), (False, True)
    )
]
DYNAMIC = [
    Quantization(scheme="dynamic", weight=w, reduce_range=r, per_channel=c)
    for w, r, c in itertools.product(("u8", "s8"), (False, True), (False, True))
]


def name_of(wish: Quantization) -> str:
    parts = [wish.scheme, wish.activation + wish.weight]
    parts += ["reduced"] if wish.reduce_range else []
    return "-".join([*parts, "channel" if wish.per_channel else "tensor"])


@pytest.fixture(scope="module")
def net() -> bytes:
    return conv_net(channels=32, blocks=3)


@pytest.mark.parametrize("wish", [*STATIC, *DYNAMIC], ids=name_of)
def test_every_int8_wish_gives_a_smaller_file_that_answers_alike(net, wish):
    """A third of the size, the same tensors outside, probabilities within 0.08."""
    data, summary = quantize_onnx(net, ROWS, wish)
    (expected,) = answers(net, ROWS)
    (got,) = answers(data, ROWS)

    assert len(data) < len(net) / 2.5
    assert got.dtype == np.float32
    np.testing.assert_allclose(expected, got, atol=0.08)
    assert {"": 17}.items() <= summary.opsets.items()


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_every_calibration_gives_ranges_inside_the_extremes(net, calibration):
    """Ranges are never wider than what was seen, and hold nearly all of it."""
    model = prepare(net)
    tensors = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    extremes = find_ranges(model, tensors, ROWS, "minmax")
    ranges = find_ranges(model, tensors, ROWS, calibration)

    assert tensors == list(ranges)
    for name, (low, high) in ranges.items():
        assert extremes[name][0] <= low < high <= extremes[name][1]
        assert high - low > 0.3 * (extremes[name][1] - extremes[name][0])


def test_outliers_are_clipped_by_percentile_and_entropy_only():
    """One value in 100,000 does not cost the others their resolution."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = prepare(model_bytes(nodes, [("x", (None, 1000))], [("y", (None, 1000))], {}))
    x = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    x[7, 7] = 500
    top = {m: find_ranges(model, ["x"], {"x": x}, m)["x"][1] for m in ("minmax", "percentile")}
    entropy = find_ranges(model, ["x"], {"x": x}, "entropy")["x"][1]

    assert 500 == top["minmax"]
    assert 3 < top["percentile"] < 6
    assert entropy < 100


def test_ranges_do_not_depend_on_how_the_rows_are_cut(net, monkeypatch):
    """Pieces of one row give what one piece gives, so memory can be bounded."""
    from edgepack.converter.onnx_quantizer import ranges

    model = prepare(net)
    tensors = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    for method in ("minmax", "percentile", "entropy"):
        whole = find_ranges(model, tensors, ROWS, method)
        with monkeypatch.context() as patch:
            patch.setattr(ranges, "_PIECE_BYTES", 1)
            for name, bounds in find_ranges(model, tensors, ROWS, method).items():
                assert whole[name] == pytest.approx(bounds, rel=0.02)


def test_fp16_halves_the_file_and_keeps_float32_outside(net):
    """Inputs, outputs and arithmetic stay float32."""
    data, _ = quantize_onnx(net, {}, Quantization(scheme="fp16"))
    (got,) = answers(data, ROWS)

    assert len(data) < 0.6 * len(net)
    assert got.dtype == np.float32
    np.testing.assert_allclose(answers(net, ROWS)[0], got, atol=2e-3)


def test_fp16_keeps_what_16_bits_cannot_hold():
    """A weight of a million stays float32, and the rest does not."""
    weights = np.full((16, 16), 1e6)
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["h"]),
        helper.make_node("MatMul", ["h", "small"], ["y"]),
    ]
    constants = {"large": weights, "small": weights / 1e6}
    file = model_bytes(nodes, [("x", (None, 16))], [("y", (None, 16))], constants)
    data, _ = quantize_onnx(file, {}, Quantization(scheme="fp16"))
    x = {"x": np.ones((2, 16), np.float32)}

    np.testing.assert_array_equal(answers(file, x)[0], answers(data, x)[0])
    kinds = {item.data_type for item in onnx.load_model_from_string(data).graph.initializer}
    assert {TensorProto.FLOAT, TensorProto.FLOAT16} == kinds


def test_the_same_wish_gives_the_same_bytes(net):
    """Twice the same for each scheme."""
    for wish in (STATIC[0], DYNAMIC[0], Quantization(scheme="fp16")):
        assert quantize_onnx(net, ROWS, wish)[0] == quantize_onnx(net, ROWS, wish)[0]


def test_files_hold_no_names_but_those_of_inputs_and_outputs(net):
    """Long names, comments and types of inner tensors are gone."""
    data, _ = quantize_onnx(net, ROWS, STATIC[0])

    assert LONG.encode() not in data
    assert b"framework" not in data
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert ["image"] == [item.name for item in model.graph.input]
    assert ["probabilities"] == [item.name for item in model.graph.output]
    assert [] == list(model.graph.value_info)


def test_normalization_is_folded_and_relu_is_part_of_its_layer(net):
    """Nothing of either is left, and domains that no node uses are gone."""
    data, summary = quantize_onnx(net, ROWS, STATIC[0])

    assert not {"BatchNormalization", "Relu", "Add", "MatMul"} & operators(data)
    assert {"": 17} == summary.opsets


def test_layers_that_are_kept_float_are_float(net):
    """By the names of the prepared graph; the others are still quantized."""
    names = [node.name for node in prepare(net).graph.node if node.op_type == "Conv"]
    wish = Quantization(scheme="static", keep_float=tuple(names[:1]))
    model = onnx.load_model_from_string(quantize_onnx(net, ROWS, wish)[0])
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    kinds = [makers.get(n.input[1], "weights") for n in model.graph.node if n.op_type == "Conv"]

    assert ["weights", "DequantizeLinear", "DequantizeLinear"] == kinds
    for scheme in ("dynamic", "static"):
        with pytest.raises(UnsupportedModelError, match="'nowhere', which is no node"):
            quantize_onnx(net, ROWS, Quantization(scheme=scheme, keep_float=("nowhere",)))


@pytest.mark.parametrize("wish", STATIC, ids=name_of)
def test_a_float_layer_behind_a_relu_gets_no_negative_numbers(wish):
    """Whichever dense layer stays in float, the Relu between two of them is still taken."""
    file = dense_net(widths=(12, 32, 24, 32, 12))
    rows = {"x": np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)}
    (expected,) = answers(file, rows)
    names = [node.name for node in prepare(file).graph.node if node.op_type == "Gemm"]

    assert 4 == len(names)
    for name in names:
        kept, _ = quantize_onnx(file, rows, replace(wish, keep_float=(name,)))
        (got,) = answers(kept, rows)
        noise = np.mean(np.square(got - expected)) / np.mean(np.square(expected))
        assert noise < 0.01


def test_dynamic_keeps_a_dense_layer_float_too():
    """Also where onnxruntime takes the layer apart and renames it."""
    file = dense_net()
    names = [node.name for node in prepare(file).graph.node if node.op_type == "Gemm"]
    whole, _ = quantize_onnx(file, {}, Quantization(scheme="dynamic"))
    kept, _ = quantize_onnx(file, {}, Quantization(scheme="dynamic", keep_float=(names[1],)))

    assert len(kept) - len(whole) > 2 * 64 * 64


def test_the_answer_of_a_regression_is_not_rounded_to_256_values():
    """The last layer's product leaves the integers as it is."""
    file = dense_net()
    x = {"x": np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)}
    data, _ = quantize_onnx(file, x, Quantization(scheme="static", reduce_range=True))
    (expected,), (got,) = answers(file, x), answers(data, x)

    assert len(np.unique(got)) > 500
    assert np.corrcoef(expected[:, 0], got[:, 0])[0, 1] > 0.995


def test_a_fixed_batch_is_kept_and_calibrated_in_its_size():
    """Batch 1 as torch exports it, and batch 5 with rows that it does not divide."""
    for batch in (1, 5):
        file = conv_net(batch=batch)
        data, _ = quantize_onnx(file, {"image": images(12)}, STATIC[0])
        feeds = {"image": images(batch)}

        np.testing.assert_allclose(answers(file, feeds)[0], answers(data, feeds)[0], atol=0.08)


def test_old_opsets_are_raised_to_what_scales_by_channel_need():
    """Opset 11 becomes 13; the answers stay."""
    file = conv_net(opset=11)
    data, summary = quantize_onnx(file, ROWS, STATIC[0])

    assert 13 == summary.opsets[""]
    np.testing.assert_allclose(answers(file, ROWS)[0], answers(data, ROWS)[0], atol=0.08)


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (Quantization(scheme="int4"), "scheme must be one of fp16, dynamic, static, got 'int4'"),
        (Quantization(scheme="static", weight="s4"), "weight must be one of u8, s8, got 's4'"),
        (Quantization(scheme="static", calibration="mean"), "calibration must be one of"),
        (Quantization(scheme="static", activation="s8", weight="u8"), "need signed weights"),
    ],
)
def test_unknown_wishes_are_refused(net, wish, text):
    """By what was expected."""
    with pytest.raises(UnsupportedModelError, match=text):
        quantize_onnx(net, ROWS, wish)


def test_nothing_to_do_is_said():
    """No rows, no layers, or no weights."""
    scaler = model_bytes(
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        [("x", (None, 4))],
        [("y", (None, 4))],
        {"s": np.ones(4)},
    )
    rows = {"x": np.ones((3, 4), np.float32)}
    with pytest.raises(UnsupportedModelError, match="no layer is left"):
        quantize_onnx(scaler, rows, STATIC[0])
    with pytest.raises(UnsupportedModelError, match="no float32 constant"):
        quantize_onnx(scaler, rows, Quantization(scheme="fp16"))
    with pytest.raises(UnsupportedModelError, match="needs calibration rows, got none"):
        quantize_onnx(conv_net(), {"image": images(0)}, STATIC[0])
    with pytest.raises(UnsupportedModelError, match="cannot be prepared"):
        quantize_onnx(b"nonsense", rows, STATIC[0])


def test_files_state_the_oldest_format_that_will_do():
    """Exporters stamp their newest, and old engines refuse it unread."""
    file = onnx.load_model_from_string(conv_net(opset=18))
    file.ir_version = 10
    data, summary = quantize_onnx(file.SerializeToString(), ROWS, STATIC[0])

    assert 8 == summary.ir_version == onnx.load_model_from_string(data).ir_version


def test_an_lstm_is_quantized_dynamically():
    """Its weights shrink to a quarter, and it counts as something to quantize."""
    file = recurrent_net()
    x = {"x": np.random.default_rng(0).normal(size=(20, 10, 6)).astype(np.float32)}
    data, _ = quantize_onnx(file, {}, Quantization(scheme="dynamic", weight="u8"))
    (expected,), (got,) = answers(file, x), answers(data, x)

    assert {"DynamicQuantizeLSTM"} <= operators(data)
    assert len(data) < len(file) / 2.5
    np.testing.assert_allclose(expected, got, atol=0.05 * np.abs(expected).max())
    weights = summarise(onnx.load_model_from_string(file)).weights
    assert 4 * 32 * 6 + 4 * 32 * 32 + 32 * 3 == weights


def test_a_dynamic_answer_does_not_depend_on_the_rows_beside_it():
    """The file is bound row by row; a static one takes whole batches."""
    file = dense_net()
    bindings = [TensorBinding(name=name, tensor=name, dtype=Datatype.FP32) for name in "xy"]
    facts = ExportFacts(
        inputs=tuple(bindings[:1]),
        outputs=tuple(bindings[1:]),
        summary=summarise(onnx.load_model_from_string(file)),
    )
    x = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    for scheme, batch in (("dynamic", 1), ("static", None)):
        job = ToolJob(
            exported=Exported(data=file, facts=facts),
            feeds={"x": x},
            wish=Quantization(scheme=scheme),
        )
        exported = tool_named("quantize-onnx")(job).exported
        assert {batch} == {b.batch for b in (*exported.facts.inputs, *exported.facts.outputs)}
    x[-1] *= 100  # among these rows alone, another scale
    (together,) = answers(quantize_onnx(file, {}, DYNAMIC[0])[0], {"x": x})
    (alone,) = answers(quantize_onnx(file, {}, DYNAMIC[0])[0], {"x": x[:1]})
    assert np.abs(together[0] - alone[0]).max() > 1e-3  # why


def test_graphs_inside_nodes_keep_their_sight_of_the_outside():
    """Renaming reaches the branches of an If, which read tensors of the graph around it."""
    rng = np.random.default_rng(0)
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, [f"{LONG}hidden"], [f"{LONG}{name}"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{LONG}{name}", TensorProto.FLOAT, None)],
        )
        for name, kind in (("then_branch", "Sin"), ("else_branch", "Cos"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", f"{LONG}kernel"], [f"{LONG}hidden"]),
        helper.make_node("ReduceSum", ["x"], [f"{LONG}sum"], keepdims=0),
        helper.make_node("Greater", [f"{LONG}sum", f"{LONG}zero"], [f"{LONG}positive"]),
        helper.make_node("If", [f"{LONG}positive"], ["y"], **branches),
    ]
    constants = {f"{LONG}kernel": rng.normal(size=(16, 16)) / 4, f"{LONG}zero": np.float32(0)}
    file = model_bytes(nodes, [("x", (None, 16))], [("y", (None, 16))], constants)
    data, _ = quantize_onnx(file, {}, Quantization(scheme="fp16"))

    assert LONG.encode() not in data
    for sign in (1, -1):
        x = {"x": sign * np.ones((2, 16), np.float32)}
        np.testing.assert_allclose(answers(file, x)[0], answers(data, x)[0], atol=2e-3)


@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_are_rows_as_scikit_learn_has_them(per_channel):
    """A bias (1, N) is the same as one (N,), with a scale for each channel too."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(8, 64)),
        "b": rng.normal(size=(1, 64)),
        "v": rng.normal(size=(64, 16)) / 8,
        "c": rng.normal(size=(1, 16)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["n"]),
        helper.make_node("Add", ["n", "c"], ["y"]),
    ]
    file = model_bytes(nodes, [("x", (None, 8))], [("y", (None, 16))], constants)
    feeds = {"x": rng.normal(size=(64, 8)).astype(np.float32)}
    wish = Quantization(scheme="static", reduce_range=True, per_channel=per_channel)
    data, _ = quantize_onnx(file, feeds, wish)
    (expected,), (got,) = answers(file, feeds), answers(data, feeds)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.03 * expected.std()
