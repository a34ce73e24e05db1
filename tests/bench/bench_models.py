"""Small models of other tasks than classification, loaded, made by code."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepack.bench.workloads import Workload, image_network
from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec
from edgepack.runtime import Model, load


def regression_model(weights: np.ndarray) -> Model:
    """Gives y = x @ weights, (N,)."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    y = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,))
    return _loaded(nodes, {"w": weights.astype(np.float32)}, y, TensorProto.FLOAT, Task.REGRESSION)


def sign_model() -> Model:
    """Calls a row of four values 1 where the first is above zero, else -1."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"]),
        helper.make_node("Sign", ["first"], ["sign"]),
        helper.make_node("Cast", ["sign"], ["label"], to=TensorProto.INT64),
    ]
    label = TensorSpec(name="label", datatype=Datatype.INT64, shape=(-1,))
    weights = np.array([[1], [0], [0], [0]], np.float32)
    return _loaded(nodes, {"w": weights}, label, TensorProto.INT64, Task.OUTLIER)


def _loaded(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    output: TensorSpec,
    output_type: int,
    task: Task,
) -> Model:
    features = len(constants["w"])
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(output.name, output_type, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    base = image_network(rounds=0).contract
    (variant,) = base.variants
    bound = TensorBinding(name=output.name, tensor=output.name, dtype=output.datatype)
    contract = dataclasses.replace(
        base,
        task=task,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, features)),),
        outputs=(output,),
        variants=(dataclasses.replace(variant, outputs=(bound,)),),
    )
    return load(Workload(contract=contract, model=model.SerializeToString(), inputs={}, tensors={}))
