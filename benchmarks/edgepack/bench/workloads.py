"""Models to measure with, made by code, as sources that `edgepack.runtime.load` takes."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

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
from edgepack.runtime.tensors import Array

IMAGE_PIXELS: Final = 96
_CHANNELS: Final = 3
_OPSETS: Final = {"": 17, "ai.onnx.ml": 3}
_UNTESTED: Final = Parity(rows=0, metric="within_tolerance", value=0.0, bound=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model and one sample for it.

    Attributes:
        contract: Of the model, with one variant.
        model: The ONNX file.
        inputs: One sample by the contract's names.
        tensors: The same sample by the file's names.
    """

    contract: Contract
    model: bytes
    inputs: dict[str, Array]
    tensors: dict[str, Array]

    @property
    def digest(self) -> str:
        """A digest, as a bundle has one."""
        return f"sha256:{hashlib.sha256(self.model).hexdigest()}"

    def read(self, path: str) -> bytes:
        """Read the model, whatever the path."""
        return self.model


def digits_pipeline() -> Workload:
    """StandardScaler and logistic regression on the handwritten digits: 64 features, 10 classes."""
    from sklearn.linear_model import LogisticRegression

    return _digits(LogisticRegression(max_iter=500))


def digits_network() -> Workload:
    """StandardScaler and a network of 64 hidden units on the digits."""
    from sklearn.neural_network import MLPClassifier

    return _digits(MLPClassifier((64,), max_iter=60, random_state=0, early_stopping=True))


def digits_text_labels() -> Workload:
    """The pipeline with text for classes, which cannot be bound."""
    from sklearn.linear_model import LogisticRegression

    return _digits(LogisticRegression(max_iter=500), text=True)


def image_network(*, rounds: int = 20) -> Workload:
    """Convolutions on a 96 x 96 colour image, about a millisecond on a fast core.

    Args:
        rounds: Convolutions of 64 channels at an eighth of the size, after three that lead there.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    plan = [(16, 2), (32, 2), (64, 2), *[(64, 1)] * rounds]
    nodes, constants = [], []
    last, channels = "x", _CHANNELS
    for index, (wanted, stride) in enumerate(plan):
        weights = rng.normal(size=(wanted, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{index}"))
        nodes += [
            helper.make_node(
                "Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4, strides=[stride] * 2
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        last, channels = f"r{index}", wanted
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    shape = (_CHANNELS, IMAGE_PIXELS, IMAGE_PIXELS)
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, channels])],
        constants,
    )
    opsets = [helper.make_opsetid("", _OPSETS[""])]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    x = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, *shape))
    y = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, channels))
    sample = rng.random((1, *shape), dtype=np.float32)
    return _workload(model.SerializeToString(), Task.GENERIC, x, (y,), sample, tensor="x")


def _digits(classifier: Any, *, text: bool = False) -> Workload:  # noqa: ANN401  (sklearn is untyped)
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, truth = load_digits(return_X_y=True)
    data = data.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), classifier)
    pipeline.fit(data, truth.astype(str) if text else truth)
    options = {id(pipeline): {"zipmap": False}}
    model = to_onnx(pipeline, data[:1], options=options, target_opset=_OPSETS)
    x = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, data.shape[1]))
    kind = Datatype.BYTES if text else Datatype.INT64
    outputs = (
        TensorSpec(name="label", datatype=kind, shape=(-1,)),
        TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, 10)),
    )
    sample = data[:1].copy()
    return _workload(model.SerializeToString(), Task.CLASSIFICATION, x, outputs, sample, tensor="X")


def _workload(
    model: bytes,
    task: Task,
    given: TensorSpec,
    outputs: tuple[TensorSpec, ...],
    sample: Array,
    *,
    tensor: str,
) -> Workload:
    bindings = [
        TensorBinding(name=spec.name, tensor=spec.name, dtype=spec.datatype)
        for spec in (given, *outputs)
    ]
    variant = Variant(
        name="onnx-fp32",
        files=("onnx-fp32/model.onnx",),
        precision="fp32",
        size_bytes=len(model),
        engine=EngineRequirements(engine="onnxruntime", opsets=_OPSETS),
        inputs=(dataclasses.replace(bindings[0], tensor=tensor),),
        outputs=tuple(bindings[1:]),
        parity=_UNTESTED,
    )
    contract = Contract(
        name="workload",
        version="1.0.0",
        task=task,
        inputs=(given,),
        outputs=outputs,
        variants=(variant,),
        golden="golden.safetensors",
    )
    return Workload(
        contract=contract, model=model, inputs={given.name: sample}, tensors={tensor: sample}
    )
