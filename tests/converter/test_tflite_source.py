"""TFLite files as originals: what they answer, how they are bound, what is wrong with them."""

import dataclasses
import sys

import numpy as np
import pytest
from support.tflite_files import (
    Op,
    Tensor,
    linear_file,
    network_file,
    quantized_file,
    tflite_bytes,
    two_outputs_file,
)

from edgepack.bundle.contract import Datatype, Task
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.errors import ModelFileError, UnfitDataError, UnsupportedModelError
from edgepack.converter.sources.find import recognise, source_named
from edgepack.converter.sources.source import ArrayShape, ExportWish, LoadOptions
from edgepack.converter.tflite_model.original import TfliteModel
from edgepack.runtime import load

ROWS = np.random.default_rng(7).normal(size=(300, 8)).astype(np.float32)


def wish_for(model: TfliteModel, task: Task, outputs, **changes) -> ExportWish:
    wish = ExportWish(
        task=task,
        inputs=model.facts.inputs,
        outputs=tuple(outputs),
        precision=model.facts.precision,
        format="tflite",
    )
    return dataclasses.replace(wish, **changes)


def test_a_tflite_file_is_recognised_by_its_content(tmp_path):
    """Whatever it is called."""
    path = tmp_path / "model.bin"
    path.write_bytes(network_file())
    found = recognise(path)

    assert ("tflite_file", "TFLite model", "tflite") == (
        found.module,
        found.description,
        found.extra,
    )


@pytest.mark.parametrize("batch", [-1, 1, 7])
def test_a_classifier_gets_a_label_derived_of_its_probabilities(batch):
    """The file stays as it is; the binding says where the label comes from."""
    data = network_file(batch=batch)
    model = TfliteModel(data)
    answers = model.run(Task.CLASSIFICATION, {"x": ROWS[:10]})
    exported = model.export(wish_for(model, Task.CLASSIFICATION, answers))
    label, probabilities = exported.facts.outputs

    assert Task.CLASSIFICATION is model.facts.task
    assert (-1, 8) == model.facts.inputs[0].shape
    assert (10, 4) == answers["probabilities"].shape
    assert answers["probabilities"].argmax(1).tolist() == answers["label"].tolist()
    assert data == exported.data
    assert ("argmax", "probabilities", None) == (
        label.derive,
        label.tensor,
        probabilities.derive,
    )
    assert (None if batch < 0 else batch) == exported.facts.inputs[0].batch


def test_quantized_inputs_and_outputs_are_real_numbers():
    """Scale and zero point stand in the bindings, and the answers are what the runtime gives."""
    model = TfliteModel(quantized_file())
    rows = np.array([[0.0, 1.0], [-0.3, 99.0]], np.float32)
    answers = model.run(Task.GENERIC, {"qx": rows})
    exported = model.export(wish_for(model, Task.GENERIC, answers))

    assert [Datatype.FP32] == [spec.datatype for spec in model.facts.inputs]
    assert [[0.0, 1.0], [-0.5, 62.0]] == answers["qy"].tolist()
    for binding in (*exported.facts.inputs, *exported.facts.outputs):
        assert (Datatype.INT8, 0.5, 3) == (binding.dtype, binding.scale, binding.zero_point)


def test_data_of_the_file_s_own_integers_is_taken_as_it_is():
    """A data set that was quantized for this file is not quantized again."""
    shape = ArrayShape(name="qx", dtype="int8", shape=(10, 2))
    model = TfliteModel(quantized_file(), (shape,))
    rows = np.array([[3, 5]], np.int8)
    answers = model.run(Task.GENERIC, {"qx": rows})
    (binding,) = model.export(wish_for(model, Task.GENERIC, answers)).facts.inputs

    assert Datatype.INT8 is model.facts.inputs[0].datatype
    assert (Datatype.INT8, None, None) == (binding.dtype, binding.scale, binding.zero_point)
    assert [[0.0, 1.0]] == answers["qy"].tolist()


def test_tasks_are_told_by_the_outputs():
    """One column is a value; a matrix may be logits or targets; several outputs are generic."""
    assert Task.REGRESSION is TfliteModel(linear_file(np.eye(3, 1))).facts.task
    assert TfliteModel(linear_file(np.eye(3, 2))).facts.task is None
    assert Task.GENERIC is TfliteModel(two_outputs_file()).facts.task

    model = TfliteModel(linear_file(np.ones((3, 1))))
    (value,) = model.run(Task.REGRESSION, {"x": ROWS[:5, :3]}).values()
    np.testing.assert_allclose(ROWS[:5, :3].sum(1), value, rtol=1e-5)


def test_logits_are_scores_and_make_a_label():
    """When the data says that it is a classifier."""
    model = TfliteModel(linear_file(np.eye(3, 2)))
    answers = model.run(Task.CLASSIFICATION, {"x": ROWS[:5, :3]})

    assert ["label", "scores"] == list(answers)


def test_a_regressor_is_no_classifier():
    """One column has no largest class."""
    model = TfliteModel(linear_file(np.eye(3, 1)))
    with pytest.raises(UnsupportedModelError, match="a classifier must give one label a row"):
        model.run(Task.CLASSIFICATION, {"x": ROWS[:5, :3]})


def test_names_are_those_that_people_gave():
    """What TensorFlow puts round them is left out where they stay unique."""
    tensors = [
        Tensor(name="serving_default_signal:0", shape=(-1, 2)),
        Tensor(name="StatefulPartitionedCall:0", shape=(-1, 2)),
    ]
    op = Op(
        kind="ADD",
        inputs=[tensors[0].name] * 2,
        outputs=[tensors[1].name],
        options_class="AddOptions",
    )
    model = TfliteModel(tflite_bytes(tensors, [op], op.inputs[:1], op.outputs))

    assert ["signal"] == [spec.name for spec in model.facts.inputs]
    assert ["StatefulPartitionedCall"] == [spec.name for spec in model.facts.outputs]


@pytest.mark.parametrize(
    "damaged",
    [
        network_file()[:900],
        network_file()[:8],
        b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 4,
        b"\x08\x00\x00\x00TFL3" + b"\xff" * 100,
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, damaged):
    """Nothing but the documented error, whatever offsets the file holds."""
    path = tmp_path / "model.tflite"
    path.write_bytes(damaged)
    source = source_named(recognise(path).module)
    with pytest.raises(
        ModelFileError, match=r"model\.tflite: the TFLite file is damaged"
    ) as caught:
        source.load(path, LoadOptions())
    assert "\n" not in str(caught.value)


def test_a_file_that_litert_cannot_load_is_one_line(tmp_path):
    """An operator of nobody."""
    data = tflite_bytes(
        [Tensor(name="x", shape=(1, 3)), Tensor(name="y", shape=(1, 3))],
        [Op(kind="", custom="Erfinv", inputs=["x"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    with pytest.raises(ModelFileError, match=r"LiteRT cannot load the file: .*Erfinv"):
        TfliteModel(data)


def test_rows_of_another_width_are_refused():
    """LiteRT itself would answer them with nonsense."""
    with pytest.raises(UnfitDataError, match=r"must have shape \[-1, 8\], got \[3, 5\]"):
        TfliteModel(network_file()).run(Task.CLASSIFICATION, {"x": ROWS[:3, :5]})


def test_a_quantized_file_is_int8_and_keeps_its_scales_in_onnx():
    """The contract's tensors are bound to integers in both formats."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("tensorflow")
    model = TfliteModel(quantized_file())
    assert "int8" == model.facts.precision
    wish = wish_for(model, Task.GENERIC, ["qy"], precision="int8")
    tflite = model.export(wish).facts
    found = model.export(dataclasses.replace(wish, format="onnx")).facts
    for ours, theirs in ((tflite.inputs, found.inputs), (tflite.outputs, found.outputs)):
        assert [(b.name, b.dtype, b.scale, b.zero_point) for b in ours] == [
            (b.name, b.dtype, b.scale, b.zero_point) for b in theirs
        ]


def test_a_file_is_converted_from_end_to_end(tmp_path):
    """fp32 answers as the original on every row, and smaller ones nearly so."""
    path = tmp_path / "net.tflite"
    path.write_bytes(network_file())
    expected = TfliteModel(network_file()).run(Task.CLASSIFICATION, {"x": ROWS})["label"]
    np.savez(tmp_path / "rows.npz", x=ROWS, label=expected)
    report = convert(
        ConvertRequest(
            model=path,
            data=tmp_path / "rows.npz",
            label="label",
            output=tmp_path / "out",
            formats=("tflite",),
        )
    )
    variants = {variant.name: variant for variant in report.variants if variant.kept}

    assert variants["tflite-fp32"].parity.figures["agreement"] == 1.0
    assert len(variants) > 1
    for name in variants:
        with load(report.path, variant=name) as model:
            found = model.predict({"x": ROWS})["label"]
        assert (found == expected).mean() >= 0.97, name


def test_onnx_is_made_by_tf2onnx_or_the_line_says_what_to_install(monkeypatch):
    """The extra is named where it is missing."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    model = TfliteModel(network_file())
    wish = wish_for(model, Task.CLASSIFICATION, ["label"], format="onnx")
    with pytest.raises(UnsupportedModelError, match=r"pip install 'edgepack\[tensorflow\]'"):
        model.export(wish)


def test_nan_is_refused_by_a_quantized_input():
    """Integers have no NaN."""
    model = TfliteModel(quantized_file())
    name = model.facts.inputs[0].name
    rows = np.full((2, *model.facts.inputs[0].shape[1:]), np.nan, np.float32)
    with pytest.raises(UnfitDataError, match="takes NaN, which its quantized tensor cannot hold"):
        model.run(Task.GENERIC, {name: rows})
