"""The TFLite writer on networks as PyTorch's and TensorFlow's exporters give them."""

import io
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgepack.bundle.contract import Task, TensorBinding
from edgepack.converter.onnx_graph import datatype_of_element, summarise
from edgepack.converter.sources import saved_model
from edgepack.converter.sources.source import Exported, ExportFacts, ExportWish, LoadOptions
from edgepack.converter.tflite_writer.check import tflite_answers
from edgepack.converter.tflite_writer.write import write_tflite

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


def exported(model: onnx.ModelProto) -> Exported:
    """An ONNX model as an exported file whose contract names are its tensors'."""

    def bound(items: Any) -> tuple[TensorBinding, ...]:
        return tuple(
            TensorBinding(
                name=item.name,
                tensor=item.name,
                dtype=datatype_of_element(item.type.tensor_type.elem_type),
            )
            for item in items
        )

    fixed = {item.name for item in model.graph.initializer}
    return Exported(
        data=model.SerializeToString(),
        facts=ExportFacts(
            inputs=bound(item for item in model.graph.input if item.name not in fixed),
            outputs=bound(model.graph.output),
            summary=summarise(model),
        ),
    )


def from_torch(net: Any, x: Any, *, dynamo: bool) -> onnx.ModelProto:
    """PyTorch's own export, of a free number of rows."""
    import torch

    net.eval()
    example = (torch.from_numpy(x[:2]),)
    names = {"input_names": ["x"], "output_names": ["y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("rows", min=1, max=4096)},)
            program = torch.onnx.export(
                net, example, dynamo=True, dynamic_shapes=shapes, verbose=False, **names
            )
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(net, example, file, dynamo=False, dynamic_axes={"x": {0: "n"}}, **names)
    return onnx.load_from_string(file.getvalue())


def nets() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Small networks of the common kinds, untrained, and the shapes of a row of their input."""
    import torch

    nn = torch.nn
    torch.manual_seed(0)

    def block(inside: int, outside: int, stride: int) -> Any:
        return nn.Sequential(
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU6(),
            nn.Conv2d(inside, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.Hardswish(),
        )

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, 2, 1)
            self.norm = nn.BatchNorm2d(8)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.a = nn.Conv2d(8, 8, 3, padding=1)
            self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.gate = nn.Conv2d(8, 8, 1)
            self.last = nn.Linear(8 * 8 * 8, 5)

        def forward(self, x: Any) -> Any:
            x = self.pool(torch.relu(self.norm(self.first(x))))
            y = self.b(torch.relu(self.a(x)))
            y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
            return torch.softmax(self.last(torch.flatten(torch.relu(x + y), 1)), 1)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(12)
            self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
            self.last = nn.Linear(12, 4)

        def forward(self, x: Any) -> Any:
            y = self.norm(x)
            w = torch.softmax(self.q(y) @ self.k(y).transpose(1, 2) / 12**0.5, -1)
            return self.last(nn.functional.gelu(x + w @ self.v(y)).mean(1))

    signal = nn.Sequential(
        nn.Conv1d(9, 16, 5, padding=2),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(16, 24, 5, stride=2),
        nn.LeakyReLU(0.1),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(24 * 7, 6),
    )
    mobile = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        block(8, 16, 1),
        block(16, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    dense = nn.Sequential(
        nn.Linear(7, 16), nn.ELU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )
    return {
        "attention": (Attention(), (10, 12)),
        "dense": (dense, (7,)),
        "mobile": (mobile, (3, 32, 32)),
        "residual": (Residual(), (3, 32, 32)),
        "signal": (signal, (9, 64)),
    }


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["attention", "dense", "mobile", "residual", "signal"])
def test_a_network_of_torch_answers_as_in_torch(name: str, *, dynamo: bool) -> None:
    """The file gives torch's numbers for one row and for many, from both of its exporters."""
    import torch

    net, shape = nets()[name]
    x = np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32)
    source = exported(from_torch(net, x, dynamo=dynamo))

    file = write_tflite(source, {"x": x[:8]})

    assert file.facts.inputs[0].batch is None
    for rows in (x, x[:1]):
        with torch.no_grad():
            expected = net(torch.from_numpy(rows)).numpy()
        actual = tflite_answers(file.data, {"x": rows}, None)["y"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_images_is_transposed_once() -> None:
    """Batch normalization and activations are inside the convolutions, layouts change once."""
    net, shape = nets()["mobile"]
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)

    file = write_tflite(exported(from_torch(net, x, dynamo=True)), {"x": x})

    found = operators_of(file)
    assert (1, 3, 2, 1) == tuple(
        found[code] for code in ("TRANSPOSE", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    )
    assert not {"RELU", "RELU6", "ADD"} & set(found)


def operators_of(file: Exported) -> Counter[str]:
    """How often each operator stands in a file."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(bytearray(file.data), 0)
    codes = [names[item.builtinCode] for item in model.operatorCodes]
    return Counter(codes[item.opcodeIndex] for item in model.subgraphs[0].operators)


def test_keyword_spotting_of_tf2onnx_keeps_its_accuracy(shared_data: Path) -> None:
    """MLPerf Tiny's SavedModel, to ONNX by tf2onnx, keeps all labels of the 1,000 samples."""
    folder = shared_data / "mlperf_tiny"
    saved_model.SOURCE.prepare()
    model = saved_model.SOURCE.load(folder / "kws_saved_model", LoadOptions())
    wish = ExportWish(
        task=Task.CLASSIFICATION,
        inputs=model.facts.inputs,
        outputs=("label", "probabilities"),
        precision="fp32",
    )
    source = model.export(wish)
    given = np.load(folder / "kws01.npz")
    shifted = given["mfcc_int8"].astype(np.float32) - float(given["zero_point"])
    x = (shifted * float(given["scale"])).astype(np.float32).reshape(-1, 49, 10, 1)
    tensor = source.facts.inputs[0].tensor

    file = write_tflite(source, {tensor: x[:32]})

    (scores,) = tflite_answers(file.data, {tensor: x}, None).values()
    expected = model.run(Task.CLASSIFICATION, {model.facts.inputs[0].name: x})["label"]
    assert expected.tolist() == scores.argmax(axis=1).tolist()
    assert "TRANSPOSE" not in operators_of(file)


def test_a_tflite_file_comes_back_from_onnx(shared_data: Path) -> None:
    """MLPerf Tiny's TFLite file goes to ONNX by tf2onnx and comes back no larger."""
    import tf2onnx

    path = shared_data / "mlperf_tiny" / "vww_96_float.tflite"
    model, _ = tf2onnx.convert.from_tflite(str(path), opset=17)
    (tensor,) = [item.name for item in model.graph.input]
    x = np.random.default_rng(0).random((12, 96, 96, 3)).astype(np.float32)

    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    file = write_tflite(exported(model), {tensor: x[:4]})

    original = tflite_answers(path.read_bytes(), {_input(path): x}, 1)
    actual = tflite_answers(file.data, {tensor: x}, batch)
    np.testing.assert_allclose(
        next(iter(actual.values())), next(iter(original.values())), rtol=1e-4, atol=1e-6
    )
    assert "TRANSPOSE" not in operators_of(file)
    assert len(file.data) < 1.05 * path.stat().st_size


def _input(path: Path) -> str:
    model = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)
    main = model.subgraphs[0]
    return str(main.tensors[main.inputs[0]].name.decode())
