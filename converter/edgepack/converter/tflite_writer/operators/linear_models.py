"""The ai.onnx.ml operators of scalers, imputers and linear models."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Tensor
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import (
    binary,
    cast,
    is_nan,
    scalar,
    unary,
)
from edgepack.converter.tflite_writer.operators.matrices import fully_connected
from edgepack.converter.tflite_writer.operators.reductions import soft
from edgepack.converter.tflite_writer.write_operator import Operators


def post_transformed(graph: Graph, step: Step, tensor: Tensor, name: str) -> Tensor:
    """Apply an ai.onnx.ml model's post_transform."""
    match step.attribute("post_transform", "NONE"):
        case "NONE":
            return tensor
        case "LOGISTIC":
            return unary(graph, "LOGISTIC", tensor, name)
        case "SOFTMAX":
            return soft(graph, "SOFTMAX", tensor, name)
        case other:
            raise step.refuse(f"with the post_transform {other}")


def as_float(graph: Graph, step: Step) -> Tensor:
    """The first input as a float32 matrix."""
    tensor = graph.plain(step.inputs[0])
    if len(tensor.shape) != 2:
        raise step.refuse("of anything but a matrix")
    if tensor.dtype != "float32":
        tensor = cast(graph, tensor, "float32", f"{step.inputs[0]}_float")
    return tensor


def _scaler(graph: Graph, step: Step) -> None:
    tensor = as_float(graph, step)
    for code, key, nothing in (("SUB", "offset", 0.0), ("MUL", "scale", 1.0)):
        numbers = np.array(step.attribute(key, [nothing]), dtype=np.float32)
        if np.any(numbers != nothing):
            constant = graph.draft.constant(numbers, f"{step.output}_{key}")
            tensor = binary(graph, code, [tensor, constant], tensor.shape, name=step.output)
    graph.put(step.output, tensor)


def _linear_regressor(graph: Graph, step: Step) -> None:
    tensor = as_float(graph, step)
    targets = step.attribute("targets", 1)
    weights = np.array(step.attribute("coefficients"), dtype=np.float32).reshape(targets, -1)
    bias = step.attribute("intercepts")
    made = fully_connected(graph, tensor, weights, np.array(bias) if bias else None, step.output)
    graph.put(step.output, post_transformed(graph, step, made, step.output))


def _linear_classifier(graph: Graph, step: Step) -> None:
    tensor = as_float(graph, step)
    output = step.outputs[1]
    bias = np.array(step.attribute("intercepts", []), dtype=np.float32)
    flat = np.array(step.attribute("coefficients"), dtype=np.float32)
    weights = flat.reshape(-1, tensor.shape[1])
    if weights.shape[0] < 2:
        raise step.refuse("with the coefficients of one class")
    made = fully_connected(graph, tensor, weights, bias if bias.size else None, f"{output}_linear")
    graph.put(output, post_transformed(graph, step, made, output))


def _imputer(graph: Graph, step: Step) -> None:
    tensor = as_float(graph, step)
    numbers = step.attribute("imputed_value_floats")
    if numbers is None:
        numbers = step.attribute("imputed_value_int64s")
    replaced = step.attribute("replaced_value_float", step.attribute("replaced_value_int64", 0))
    missing = f"{step.output}_missing"
    if np.isnan(replaced):
        absent = is_nan(graph, tensor, missing)
    else:
        operands = [tensor, scalar(graph, replaced)]
        absent = binary(graph, "EQUAL", operands, tensor.shape, name=missing, dtype="bool")
    constant = np.array(numbers, dtype=np.float32)
    made = graph.draft.add(
        "SELECT_V2",
        [absent, graph.draft.constant(constant, f"{step.output}_values"), tensor],
        tensor.shape,
        name=step.output,
        options=schema.SelectV2OptionsT(),
    )
    graph.put(step.output, made)


def _binarizer(graph: Graph, step: Step) -> None:
    tensor = as_float(graph, step)
    operands = [tensor, scalar(graph, step.attribute("threshold", 0.0))]
    above = binary(
        graph, "GREATER", operands, tensor.shape, name=f"{step.output}_above", dtype="bool"
    )
    graph.put(step.output, cast(graph, above, graph.dtype(step.output), step.output))


def _one_hot(graph: Graph, step: Step) -> None:
    categories = step.attribute("cats_int64s")
    if categories is None:
        raise step.refuse("of text")
    value = graph.value(step.inputs[0])
    tensor = graph.reshaped(graph.plain(step.inputs[0]), (*value.shape, 1))
    constant = graph.draft.constant(
        np.array(categories).astype(tensor.dtype), f"{step.output}_categories"
    )
    shape = graph.shape(step.output)
    same = binary(
        graph, "EQUAL", [tensor, constant], shape, name=f"{step.output}_same", dtype="bool"
    )
    graph.put(step.output, cast(graph, same, "float32", step.output))


def _label_encoder(graph: Graph, step: Step) -> None:
    keys = step.attribute("keys_floats") or step.attribute("keys_int64s")
    values = step.attribute("values_floats") or step.attribute("values_int64s")
    if keys is None or values is None:
        raise step.refuse("of text")
    tensor = graph.plain(step.inputs[0])
    dtype = graph.dtype(step.output)
    default = step.attribute("default_float" if dtype == "float32" else "default_int64", -1)
    made = scalar(graph, default, None)
    for key, value in zip(keys, values, strict=True):
        place = f"{step.output}_{key}"
        known = (
            is_nan(graph, tensor, place)
            if np.isnan(key)
            else binary(
                graph,
                "EQUAL",
                [tensor, scalar(graph, key, tensor)],
                tensor.shape,
                name=place,
                dtype="bool",
            )
        )
        made = graph.draft.add(
            "SELECT_V2",
            [known, scalar(graph, value), made],
            tensor.shape,
            name=step.output,
            options=schema.SelectV2OptionsT(),
        )
    if dtype != "float32":
        made = cast(graph, made, dtype, step.output)
    graph.put(step.output, made)


OPERATORS: Operators = {
    "ai.onnx.ml.Binarizer": _binarizer,
    "ai.onnx.ml.Imputer": _imputer,
    "ai.onnx.ml.LabelEncoder": _label_encoder,
    "ai.onnx.ml.LinearClassifier": _linear_classifier,
    "ai.onnx.ml.LinearRegressor": _linear_regressor,
    "ai.onnx.ml.OneHotEncoder": _one_hot,
    "ai.onnx.ml.Scaler": _scaler,
}
