"""Quantizing, ranking and looking at TFLite files: by real inference, in LiteRT."""

import dataclasses

import numpy as np
import pytest
from support.tflite_files import Op, Tensor, network_file, quantized_file, tflite_bytes

from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)
from edgepack.converter.candidates_tflite import candidates
from edgepack.converter.draft import MemorySource
from edgepack.converter.errors import ModelFileError, UnfitDataError, UnsupportedModelError
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tflite_graph import operator_name, read, summarise, tensors_of
from edgepack.converter.tflite_quantizer.calibrate import ranges_of
from edgepack.converter.tflite_quantizer.lint import lint
from edgepack.converter.tflite_quantizer.rewrite import layer_names
from edgepack.converter.tflite_quantizer.run import answers
from edgepack.converter.tools.find import tool_named
from edgepack.converter.tools.tool import Quantization, ToolJob
from edgepack.runtime import UnsupportedModelError as UnsupportedModelErrorOfRuntime
from edgepack.runtime import load

STATIC = Quantization(scheme="static", activation="s8")
DYNAMIC = Quantization(scheme="dynamic", activation="s8")
HALF = Quantization(scheme="fp16")
NETWORK = network_file()
ROWS = np.random.default_rng(5).normal(size=(300, 8)).astype(np.float32)


def job(data: bytes, wish: Quantization | None, rows=ROWS, **fields) -> ToolJob:
    (x,), outputs = tensors_of(data)
    facts = ExportFacts(
        inputs=(TensorBinding(name="x", tensor=x.name, dtype=x.datatype),),
        outputs=tuple(
            TensorBinding(name=item.name, tensor=item.name, dtype=item.datatype) for item in outputs
        ),
        summary=summarise(data),
    )
    feeds = {} if rows is None else {x.name: rows}
    return ToolJob(exported=Exported(data=data, facts=facts), feeds=feeds, wish=wish, fields=fields)


def quantized(data: bytes, wish: Quantization, rows=ROWS) -> bytes:
    result = tool_named("quantize-tflite")(job(data, wish, rows))
    assert result.exported is not None
    assert summarise(result.exported.data) == result.exported.facts.summary
    return result.exported.data


def agreement(data: bytes, original: bytes = NETWORK) -> float:
    (x,), _ = tensors_of(original)
    found, expected = (answers(file, {x.name: ROWS})[0] for file in (data, original))
    return float((found.argmax(1) == expected.argmax(1)).mean())


@pytest.mark.parametrize("batch", [-1, 1, 7])
@pytest.mark.parametrize(
    ("wish", "part"),
    [
        (STATIC, 0.6),
        (dataclasses.replace(STATIC, per_channel=False), 0.5),
        (dataclasses.replace(STATIC, calibration="percentile"), 0.6),
        (dataclasses.replace(STATIC, calibration="entropy"), 0.6),
        (DYNAMIC, 0.6),
        (HALF, 0.65),
    ],
)
def test_a_quantized_file_is_smaller_and_answers_alike(wish, part, batch):
    """Inputs and outputs keep their names, shapes and float32, whatever the file's batch."""
    original = network_file(batch=batch)
    data = quantized(original, wish)

    assert tensors_of(original) == tensors_of(data)
    assert len(data) < part * len(original)
    assert agreement(data) >= 0.95


def test_static_int8_computes_in_int8():
    """Nothing with weights stays in float, and nothing is requantized on the way."""
    found = lint(quantized(NETWORK, STATIC))

    assert ({}, 0, ()) == (found.float_operators, found.left_over_qdq, found.missing_operators)
    assert {"FULLY_CONNECTED": 3} == lint(NETWORK).float_operators


def test_layers_can_be_kept_in_float():
    """By the names that the ranking gives; the others are int8 all the same."""
    first = layer_names(NETWORK)[0]
    data = quantized(NETWORK, dataclasses.replace(STATIC, keep_float=(first,)))
    found = lint(data)

    assert "layer0" == first
    assert {"FULLY_CONNECTED": 1} == found.float_operators
    assert ("1 FULLY_CONNECTED keep float weights beside 2 operators with 8-bit ones",) == (
        found.messages
    )
    assert agreement(data) >= 0.95


def test_the_ranking_measures_each_layer_alone():
    """Worst first; the layer whose weights int8 cannot hold is the worst.

    One of them is large, and is multiplied with a number that is always zero.
    """
    tensors = [
        Tensor(name="x", shape=(-1, 8)),
        Tensor(name="w1", shape=(32, 8), value=_weights(32, 8, row=0)),
        Tensor(name="good", shape=(-1, 32)),
        Tensor(name="w2", shape=(32, 32), value=_weights(32, 32, first=3000)),
        Tensor(name="bad", shape=(-1, 32)),
        Tensor(name="w3", shape=(3, 32), value=_weights(3, 32)),
        Tensor(name="y", shape=(-1, 3)),
    ]
    ops = [
        Op(
            kind="FULLY_CONNECTED",
            inputs=names[:2],
            outputs=names[2:],
            options_class="FullyConnectedOptions",
        )
        for names in (["x", "w1", "good"], ["good", "w2", "bad"], ["bad", "w3", "y"])
    ]
    data = tflite_bytes(tensors, ops, ["x"], ["y"])
    wish = dataclasses.replace(STATIC, per_channel=False)
    fields = tool_named("rank-tflite")(job(data, wish)).fields

    assert 0 == fields["not_measured"]
    layers = fields["layers"]
    assert {"good", "bad", "y"} == {layer["name"] for layer in layers}
    assert "bad" == layers[0]["name"]
    assert sorted(layer["sqnr_db"] for layer in layers) == [layer["sqnr_db"] for layer in layers]
    assert layers[0]["sqnr_db"] < layers[1]["sqnr_db"] - 3


def _weights(wide: int, width: int, *, row: int | None = None, first: float = 1) -> np.ndarray:
    """Weights of which the first is large, or of which a row is zero."""
    weights = np.random.default_rng(3).normal(size=(wide, width)).astype(np.float32)
    weights[0, 0] = first
    if row is not None:
        weights[row] = 0
    return weights


def test_the_ranking_stops_when_its_time_is_up():
    """And says how many layers it did not measure."""
    fields = tool_named("rank-tflite")(job(NETWORK, STATIC, limit_s=0)).fields

    assert ([], 4) == (fields["layers"], fields["not_measured"])


def test_lint_names_operators_that_litert_lacks():
    """A file that no device can run is told before it is packed."""
    file = tflite_bytes(
        [Tensor(name="x", shape=(1, 3)), Tensor(name="y", shape=(1, 3))],
        [Op(kind="", custom="Erfinv", inputs=["x"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    fields = tool_named("lint-tflite")(job(file, None)).fields

    assert ["Erfinv"] == fields["missing_operators"]


def test_lint_says_when_only_a_delegate_takes_the_file(monkeypatch):
    """Devices without XNNPACK would refuse it."""
    monkeypatch.setattr(
        "edgepack.converter.tflite_quantizer.lint._load",
        lambda data, resolver: "no such kernel" if resolver == "reference" else None,
    )
    (message,) = lint(NETWORK).messages

    assert message.startswith("only LiteRT's delegate (XNNPACK) takes this file")
    assert message.endswith("no such kernel")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Quantization(scheme="int4"), "scheme must be one of static, dynamic, fp16, got 'int4'"),
        (Quantization(scheme="static"), "signed activations .* got activation 'u8'"),
        (dataclasses.replace(STATIC, reduce_range=True), "reduce_range True"),
        (dataclasses.replace(STATIC, calibration="mse"), "calibration must be one of minmax"),
        (dataclasses.replace(STATIC, keep_float=("none",)), "keep_float .* got 'none'"),
        (None, "quantize-tflite needs a wish"),
    ],
)
def test_what_tflite_does_not_have_is_refused(wish, message):
    """In one line."""
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        tool_named("quantize-tflite")(job(NETWORK, wish))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [None, ROWS[:0], ROWS[:, :5]])
def test_rows_that_do_not_do_are_told(rows):
    """No rows, and rows of another width."""
    with pytest.raises(UnfitDataError) as caught:
        tool_named("quantize-tflite")(job(NETWORK, STATIC, rows))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line():
    """Whichever tool gets it."""
    exported = dataclasses.replace(job(NETWORK, STATIC).exported, data=NETWORK[:1000])
    for tool in ("quantize-tflite", "rank-tflite", "lint-tflite"):
        with pytest.raises(ModelFileError, match="the TFLite file is damaged"):
            tool_named(tool)(ToolJob(exported=exported, feeds={"x": ROWS}, wish=STATIC))


def test_ranges_hold_every_value_of_every_row():
    """Also those of rows that did not fill the last chunk."""
    rows = ROWS[:65].copy()
    rows[64, 3] = 1000.0
    found = ranges_of(NETWORK, {"x": rows}, "minmax")["x"]

    assert (float(rows.min()), 1000.0) == (found.low, found.high)
    many = np.tile(ROWS, (50, 1))
    many[7, 3] = 1000.0
    assert ranges_of(NETWORK, {"x": many}, "percentile")["x"].high < 10.0


def test_an_older_interpreter_answers_rightly_or_not_at_all():
    """It has no kernel for dense layers with a scale for each channel, and must be told so."""
    bundle = tflite_bundle(quantized(NETWORK, DYNAMIC))
    with pytest.raises(UnsupportedModelErrorOfRuntime, match="FULLY_CONNECTED"):
        load(bundle)
    with load(tflite_bundle(quantized(NETWORK, STATIC))) as model:
        (expected,) = answers(NETWORK, {"x": ROWS})
        found = model.predict({"x": ROWS})["probabilities"]
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


def tflite_bundle(data: bytes) -> MemorySource:
    """A bundle for tflite-runtime."""
    facts = job(data, None).exported.facts
    variant = Variant(
        name="tflite-int8",
        files=("tflite-int8/model.tflite",),
        precision="int8",
        size_bytes=len(data),
        engine=EngineRequirements(engine="tflite-runtime", opsets=facts.summary.opsets),
        inputs=facts.inputs,
        outputs=facts.outputs,
        parity=Parity(rows=0, metric="none", value=0.0, bound=0.0),
    )
    contract = Contract(
        name="test",
        version="1.0.0",
        task=Task.GENERIC,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 8)),),
        outputs=(TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, 4)),),
        variants=(variant,),
        golden="golden.safetensors",
    )
    return MemorySource(contract=contract, files={variant.files[0]: data})


@pytest.mark.parametrize("wish", [DYNAMIC, HALF, STATIC])
def test_a_file_with_small_weights_can_be_quantized_in_another_way(wish):
    """Its constants become float32 first: 8-bit and 16-bit ones, and the operators of old files."""
    for before in (DYNAMIC, HALF):
        if before == wish:
            continue
        again = quantized(quantized(NETWORK, before), wish)

        assert abs(len(again) - len(quantized(NETWORK, wish))) < 200
        assert agreement(again) >= 0.94


def test_what_has_nothing_to_quantize_is_refused():
    """Instead of giving the same file under another name."""
    data = tflite_bytes(
        [Tensor(name=name, shape=(-1, 8)) for name in ("x", "y")],
        [Op(kind="EXP", inputs=["x"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    for wish in (DYNAMIC, HALF, STATIC):
        with pytest.raises(UnsupportedModelError, match=f"no.* form for {wish.scheme}"):
            quantized(data, wish)


def test_an_int8_file_can_be_looked_at():
    """A file that somebody else quantized has no float operators."""
    assert {} == lint(quantized_file()).float_operators


def test_a_real_model_keeps_its_answers_in_a_third_of_the_size(shared_data):
    """MLPerf Tiny's MobileNet, whose weights lie behind the tables once it is quantized."""
    folder = shared_data / "mlperf_tiny"
    original = (folder / "vww_96_float.tflite").read_bytes()
    (x,), _ = tensors_of(original)
    rng = np.random.default_rng(1)
    rows = rng.random((150, 6, 6, 3)).astype(np.float32).repeat(16, axis=1).repeat(16, axis=2)
    data = quantized(original, STATIC, rows[:100])
    found, expected = (answers(file, {x.name: rows[100:]})[0] for file in (data, original))

    assert len(data) < 0.35 * len(original)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert "CONV_2D" in {operator_name(item) for item in read(data).graphs[0].operators}


def test_samples_of_a_tensor_are_of_all_its_channels():
    """Every n-th value of an image is of the same few channels, and others would be cut off."""
    rows = np.zeros((3000, 8), np.float32)
    rows[:, 1::2] = np.random.default_rng(0).normal(size=(3000, 4))
    tensors = [Tensor(name=name, shape=(-1, 8)) for name in ("x", "y")]
    data = tflite_bytes(tensors, [Op(kind="ABS", inputs=["x"], outputs=["y"])], ["x"], ["y"])
    found = ranges_of(data, {"x": np.tile(rows, (20, 1))}, "percentile")["x"]

    assert found.high > 3.0


def test_candidates_are_all_ones_that_the_quantizer_takes():
    """The default one first; none for a file without weights."""
    found = candidates(summarise(NETWORK))
    for _, wish in found:
        assert len(quantized(NETWORK, wish)) < 0.7 * len(NETWORK)

    assert "tflite-int8" == found[0][0]
    assert () == candidates(summarise(quantized_file()))
