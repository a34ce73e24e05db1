"""A linear regression as a loaded model, made by code."""

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepack.bench.workloads import Workload, image_network
from edgepack.bundle.contract import Datatype, Task, TensorSpec
from edgepack.runtime import Model, load


def regression_model(weights: np.ndarray) -> Model:
    """Gives value = x @ weights, (N,)."""
    features = len(weights)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    contract = dataclasses.replace(
        image_network(rounds=0).contract,
        task=Task.REGRESSION,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, features)),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,)),),
    )
    source = Workload(contract=contract, model=model.SerializeToString(), inputs={}, tensors={})
    return load(source)
