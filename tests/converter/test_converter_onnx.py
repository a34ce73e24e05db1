"""Ready ONNX files: made by skl2onnx, and by hand without scikit-learn."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from converter_models import Table, opened, run, variant
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from sklearn.linear_model import LogisticRegression, Ridge

from edgepack.bundle.contract import Datatype, Task, Tolerances
from edgepack.converter import (
    ModelFileError,
    Precision,
    ToleranceError,
    UnfitDataError,
    UnsupportedModelError,
)
from edgepack.converter.onnx_model.traits import precision
from edgepack.runtime import load
from edgepack.runtime.dataset import read_dataset
from edgepack.runtime.dataset_inputs import to_inputs
from edgepack.runtime.errors import DatasetError

FEATURES, HIDDEN, CLASSES = 8, 512, 3


def weights(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(FEATURES, HIDDEN)).astype(np.float32) / 3,
        rng.normal(size=HIDDEN).astype(np.float32),
        rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32) / 10,
    ]


def network(*, softmax: bool = True, batch: int | str = "N", columns: int = CLASSES) -> Any:
    """A network of two layers, written by hand."""
    first, bias, second = weights()
    nodes = [
        helper.make_node("Gemm", ["input", "first", "bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["logits"]),
    ]
    output = "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["output"], axis=1))
        output = "output"
    constants = {"first": first, "bias": bias, "second": second[:, :columns]}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, FEATURES])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(rows: np.ndarray) -> np.ndarray:
    """What the network gives, in numpy."""
    first, bias, second = weights()
    logits = np.maximum(rows @ first + bias, 0) @ second
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.fixture
def rows(tmp_path: Path) -> Table:
    values = np.random.default_rng(1).normal(size=(400, FEATURES)).astype(np.float32)
    path = tmp_path / "rows.npz"
    np.savez(path, X=values, y=answers(values).argmax(axis=1))
    return Table(values, None, path, "y")


def written(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_a_network_made_by_hand(rows: Table, tmp_path: Path) -> None:
    """A Softmax makes it a classifier with a label; int8 is made, smaller, and close."""
    report = run(written(network(), tmp_path / "net.onnx"), rows, tmp_path)
    assert Task.CLASSIFICATION is report.task
    assert {"onnx-fp32", "onnx-int8"} <= {item.name for item in report.variants if item.kept}
    int8, fp32 = variant(report, "onnx-int8"), variant(report, "onnx-fp32")
    assert int8.parity is not None
    assert fp32.parity is not None
    assert int8.parity.value >= 0.99
    assert 1.0 == fp32.parity.figures["accuracy"]
    with load(report.path) as model:
        got = model.predict({"input": rows.train})
    assert answers(rows.train).argmax(axis=1).tolist() == got["label"].tolist()
    np.testing.assert_allclose(got["probabilities"], answers(rows.train), rtol=1e-4, atol=1e-6)


def test_logits_with_classes_as_truth_are_a_classifier(rows: Table, tmp_path: Path) -> None:
    """A bare matrix of numbers is a classifier when the truth is one of its columns."""
    report = run(written(network(softmax=False), tmp_path / "net.onnx"), rows, tmp_path)
    assert Task.CLASSIFICATION is report.task
    assert ["label", "scores"] == [spec.name for spec in opened(report).contract.outputs]


def test_logits_without_truth_are_tensors(rows: Table, tmp_path: Path) -> None:
    """Without truth nothing is guessed: tensors in, tensors out, by the file's own names."""
    data = tmp_path / "rows.npy"
    np.save(data, rows.train)
    model = written(network(softmax=False), tmp_path / "net.onnx")
    report = run(model, Table(None, None, data, ""), tmp_path, label=None)
    assert Task.GENERIC is report.task
    assert ["logits"] == [spec.name for spec in opened(report).contract.outputs]


def test_what_loses_too_much_is_left_out(rows: Table, tmp_path: Path) -> None:
    """A variant that misses its tolerance is left out, with its figures; fp32 stays."""
    data = tmp_path / "rows.npy"
    np.save(data, rows.train)
    report = run(
        written(network(softmax=False), tmp_path / "net.onnx"),
        Table(None, None, data, ""),
        tmp_path,
        label=None,
        tolerances=Tolerances(max_drop=0.0),
    )
    int8 = variant(report, "onnx-int8")
    assert not int8.kept
    assert "R² drops by 0.0" in (int8.reason or "")
    assert int8.parity is not None
    assert 0 < int8.parity.figures["drop_low"] <= int8.parity.figures["drop"]
    assert {"fp32"} == {item.precision for item in opened(report).contract.variants}


def test_a_precision_that_is_named_must_be_met(rows: Table, tmp_path: Path) -> None:
    """Whoever asks for int8 by name gets it, or one line that says why not, and no bundle."""
    model = written(network(softmax=False), tmp_path / "net.onnx")
    data = tmp_path / "rows.npy"
    np.save(data, rows.train)
    table = Table(None, None, data, "")
    with pytest.raises(ToleranceError, match=r"no int8 variant .*: onnx-int8-.*: R² drops by"):
        run(
            model,
            table,
            tmp_path,
            label=None,
            tolerances=Tolerances(max_drop=0.0),
            precision=(Precision.FP32, Precision.INT8),
        )
    assert [] == list((tmp_path / "out").glob("*"))


def test_the_task_can_be_given(rows: Table, tmp_path: Path) -> None:
    """A task that is given decides."""
    model = written(network(softmax=False), tmp_path / "net.onnx")
    report = run(model, rows, tmp_path, task=Task.GENERIC, precision=Precision.FP32)
    assert Task.GENERIC is report.task


def test_a_fixed_batch_is_looped(rows: Table, tmp_path: Path) -> None:
    """A file of a fixed batch serves any number of rows."""
    model = written(network(batch=1), tmp_path / "net.onnx")
    report = run(model, rows, tmp_path)
    bundle = opened(report)
    assert 1 == bundle.contract.variants[0].inputs[0].batch
    with load(report.path) as packed:
        got = packed.predict({"input": rows.train[:5]})
    np.testing.assert_allclose(got["probabilities"], answers(rows.train[:5]), rtol=1e-4, atol=1e-6)


def test_one_column_is_a_regression(rows: Table, tmp_path: Path) -> None:
    """One number a row is a regression's value."""
    model = written(network(softmax=False, columns=1), tmp_path / "net.onnx")
    data = tmp_path / "rows.npy"
    np.save(data, rows.train)
    report = run(model, Table(None, None, data, ""), tmp_path, label=None, precision=Precision.FP32)
    assert Task.REGRESSION is report.task
    assert [("value", (-1,))] == [(s.name, s.shape) for s in opened(report).contract.outputs]


SKL2ONNX = """
import sys, joblib
from skl2onnx import to_onnx
model, row = joblib.load(sys.argv[1])
options = {"zipmap": "zipmap" in sys.argv[3:]}
file = to_onnx(model, row, options=options, target_opset=17)
open(sys.argv[2], "wb").write(file.SerializeToString())
"""


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_file_of_skl2onnx(zipmap: bool, iris_table: Table, tmp_path: Path) -> None:
    """skl2onnx's own files are taken, also with its dictionaries of probabilities."""
    train = iris_table.train.to_numpy(np.float32)
    model = LogisticRegression(max_iter=500).fit(train, iris_table.train_labels)
    joblib.dump((model, train[:1]), tmp_path / "model.joblib")
    # In a process of its own: here skl2onnx may have been told of edgepack's own converters.
    subprocess.run(
        [sys.executable, "-c", SKL2ONNX, tmp_path / "model.joblib", tmp_path / "iris.onnx"]
        + ["zipmap"] * zipmap,
        check=True,
    )
    report = run(tmp_path / "iris.onnx", iris_table, tmp_path)
    assert Task.CLASSIFICATION is report.task
    assert zipmap == any("ZipMap is left out" in message for message in report.messages)
    contract = opened(report).contract
    assert ["label", "probabilities"] == [spec.name for spec in contract.outputs]
    assert tuple(iris_table.train.columns) == contract.inputs[0].feature_names
    assert variant(report, "tflite-fp32").kept  # it knows the names of the classes
    with load(report.path) as packed:
        dataset = read_dataset(iris_table.path, label="target")
        got = packed.predict(to_inputs(dataset, contract))["label"]
    table = np.column_stack([dataset.arrays[name] for name in iris_table.train.columns])
    assert model.predict(table.astype(np.float32)).tolist() == got.tolist()


def test_weights_beside_the_file_are_taken_in(rows: Table, tmp_path: Path) -> None:
    """External data becomes part of the packed file."""
    path = tmp_path / "net.onnx"
    onnx.save(
        network(),
        path,
        save_as_external_data=True,
        location="net.weights",
        size_threshold=16,
    )
    assert (tmp_path / "net.weights").exists()
    report = run(path, rows, tmp_path, precision=Precision.FP32)
    with load(report.path) as packed:
        got = packed.predict({"input": rows.train})
    np.testing.assert_allclose(got["probabilities"], answers(rows.train), rtol=1e-4, atol=1e-6)


def test_weights_outside_the_folder_are_refused(rows: Table, tmp_path: Path) -> None:
    """External data may not lie outside the model's folder."""
    inner = tmp_path / "inner"
    inner.mkdir()
    model = network()
    onnx.save(
        model, inner / "net.onnx", save_as_external_data=True, location="w", size_threshold=16
    )
    (inner / "w").rename(tmp_path / "w")
    found = onnx.load(inner / "net.onnx", load_external_data=False)
    for tensor in found.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w"
    path = written(found, inner / "net.onnx")
    with pytest.raises(ModelFileError, match="not a file beside it"):
        run(path, rows, tmp_path)


def test_a_truncated_file_is_refused(rows: Table, tmp_path: Path) -> None:
    """Half an ONNX file is told as such."""
    path = written(network(), tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelFileError, match="truncated ONNX"):
        run(path, rows, tmp_path)


def test_an_invalid_graph_is_refused(rows: Table, tmp_path: Path) -> None:
    """A whole file with a graph that makes no sense is one line."""
    model = network()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelFileError, match="not a valid ONNX model"):
        run(written(model, tmp_path / "net.onnx"), rows, tmp_path)


def test_rows_of_another_width_are_refused(rows: Table, tmp_path: Path) -> None:
    """Data of another width than the file's input says what it should be."""
    data = tmp_path / "wide.npy"
    np.save(data, np.zeros((100, FEATURES + 1), np.float32))
    path = written(network(), tmp_path / "net.onnx")
    with pytest.raises(Exception, match=r"must have shape \[-1, 8\], got \[100, 9\].*label"):
        run(path, Table(None, None, data, ""), tmp_path, label=None)


def test_classes_of_one_kind_are_refused(rows: Table, tmp_path: Path) -> None:
    """A truth of one class proves nothing."""
    data = tmp_path / "one.npz"
    np.savez(data, X=rows.train, y=np.zeros(len(rows.train), int))
    path = written(network(), tmp_path / "net.onnx")
    with pytest.raises(UnfitDataError, match="at least 2 classes, got only '0'"):
        run(path, Table(None, None, data, "y"), tmp_path)


def test_double_precision_files_stay_double(tmp_path: Path) -> None:
    """A file with float64 inputs keeps them in the contract."""
    from skl2onnx import to_onnx

    rng = np.random.default_rng(0)
    train = rng.normal(size=(200, 3))
    model = Ridge().fit(train, train @ [1.0, 2.0, 3.0])
    data = tmp_path / "rows.npy"
    np.save(data, train)
    path = written(to_onnx(model, train[:1], target_opset=17), tmp_path / "ridge.onnx")
    report = run(path, Table(None, None, data, ""), tmp_path, label=None)
    assert Datatype.FP64 is opened(report).contract.inputs[0].datatype


def one_node(kind: str, element: int, shape: list[Any], **attributes: Any) -> Any:
    """A model of one operator on a matrix of 8 columns."""
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "x"] if kind == "Equal" else ["x"], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", element, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def plain(rows: Table, tmp_path: Path) -> Table:
    """Rows without truth."""
    np.save(tmp_path / "plain.npy", rows.train)
    return Table(None, None, tmp_path / "plain.npy", "")


def test_a_matrix_of_flags_is_no_label(plain: Table, tmp_path: Path) -> None:
    """An output of several truth values a row is packed as it is."""
    flags = one_node("Equal", TensorProto.BOOL, ["N", FEATURES])
    path = written(flags, tmp_path / "flags.onnx")
    report = run(path, plain, tmp_path, label=None)
    assert (Task.GENERIC, "ONNX model: ONNX graph of 1 operators") == (report.task, report.source)
    (spec,) = opened(report).contract.outputs
    assert ("y", Datatype.BOOL, (-1, FEATURES)) == (spec.name, spec.datatype, spec.shape)
    with pytest.raises(UnsupportedModelError, match=r"one label a row, or scores.*'y' BOOL"):
        run(path, plain, tmp_path, label=None, task=Task.CLASSIFICATION)


def test_an_output_without_rows_is_refused(plain: Table, tmp_path: Path) -> None:
    """One value for all rows has no meaning row by row."""
    mean = one_node("ReduceMean", TensorProto.FLOAT, [], keepdims=0)
    with pytest.raises(UnsupportedModelError, match="output 'y' must have the rows"):
        run(written(mean, tmp_path / "mean.onnx"), plain, tmp_path, label=None)


def test_an_output_without_a_shape_gets_the_one_that_it_has(plain: Table, tmp_path: Path) -> None:
    """The engine takes such files, so they are converted."""
    bare = one_node("Softmax", TensorProto.FLOAT, ["N", FEATURES])
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    report = run(written(bare, tmp_path / "bare.onnx"), plain, tmp_path, label=None)
    assert Task.CLASSIFICATION is report.task


def test_a_model_without_inputs_is_refused(plain: Table, tmp_path: Path) -> None:
    """Nothing of the data could go in."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["w"], ["y"])],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
        [numpy_helper.from_array(np.ones((2, 2), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelFileError, match="the ONNX model has no input"):
        run(written(model, tmp_path / "constant.onnx"), plain, tmp_path, label=None)


def test_a_model_without_a_dimension_for_rows_is_told(plain: Table, tmp_path: Path) -> None:
    """A matrix of rows does not fit it, and why is said."""
    single = one_node("Relu", TensorProto.FLOAT, [FEATURES])
    del single.graph.input[0].type.tensor_type.shape.dim[0]
    with pytest.raises(DatasetError, match="the model has no dimension for rows"):
        run(written(single, tmp_path / "single.onnx"), plain, tmp_path, label=None)


class _Rows(CalibrationDataReader):
    """Rows for onnxruntime's quantizer."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = iter(np.array_split(rows, 8))

    def get_next(self) -> Any:
        piece = next(self._rows, None)
        return None if piece is None else {"input": piece}


@pytest.mark.parametrize("kind", ["QDQ", "QOperator", "dynamic"])
def test_a_quantized_file_is_what_it_is(kind: str, rows: Table, tmp_path: Path) -> None:
    """It is packed under its own precision, held to agreement, and is the int8 asked for."""
    plain, small = written(network(), tmp_path / "plain.onnx"), tmp_path / "small.onnx"
    if kind == "dynamic":
        quantize_dynamic(plain, small)
    else:
        quantize_static(plain, small, _Rows(rows.train), quant_format=QuantFormat[kind])
    wanted = Precision.INT8_DYNAMIC if kind == "dynamic" else Precision.INT8
    report = run(small, rows, tmp_path, precision=(wanted,))
    (packed,) = opened(report).contract.variants
    assert (f"onnx-{wanted.value}", "int8") == (packed.name, packed.precision)
    assert "agreement" == packed.parity.metric
    assert Task.CLASSIFICATION is report.task
    assert "the file is quantized already, and is packed as it is" in report.messages
    fp16 = pytest.raises(ToleranceError, match="no fp16 variant can be packed")
    with fp16:
        run(small, rows, tmp_path, precision=(Precision.FP16,), overwrite=True)


def test_the_precision_of_a_file_is_that_of_its_weights() -> None:
    """Half and double files are called so."""
    for element, expected in ((np.float16, "fp16"), (np.float64, "fp64"), (np.float32, "fp32")):
        model = network()
        for item in model.graph.initializer:
            value = numpy_helper.to_array(item).astype(element)
            item.CopyFrom(numpy_helper.from_array(value, item.name))
        assert expected == precision(model)


def given(values: np.ndarray, folder: Path) -> Table:
    path = folder / "given.npz"
    np.savez(path, X=values)
    return Table(values, None, path, None)


@pytest.mark.parametrize("row", [3, 150])
def test_a_network_that_answers_nan_takes_none(row: int, tmp_path: Path) -> None:
    """NaN is refused by column and row, whether the row is compared or for calibration."""
    values = np.random.default_rng(1).normal(size=(200, FEATURES)).astype(np.float32)
    values[row, 2] = np.nan
    net = written(network(), tmp_path / "net.onnx")
    with pytest.raises(UnfitDataError, match=rf"takes no NaN.*'input2' \(only row {row + 1}\)"):
        run(net, given(values, tmp_path), tmp_path)


def test_whole_numbers_are_cast_where_that_is_exact(tmp_path: Path) -> None:
    """A cast is said; a number that the model's floats cannot hold is refused by its place."""
    values = np.random.default_rng(1).integers(-9, 9, size=(100, FEATURES))
    net = written(network(), tmp_path / "net.onnx")
    report = run(net, given(values, tmp_path), tmp_path, precision=Precision.FP32)
    assert "'x' is int64 and the model takes FP32: cast, every value exactly" in report.messages
    values[5, 1] = 2**24 + 1
    with pytest.raises(UnfitDataError, match=r"'x\[1\]' must be exact.*16777217 in row 6"):
        run(net, given(values, tmp_path), tmp_path)
