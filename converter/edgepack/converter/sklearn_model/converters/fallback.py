"""What skl2onnx writes for a whole estimator, as a part of another one's graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import TensorProto, compose
from skl2onnx import convert_sklearn
from skl2onnx._parse import sklearn_parsers_map
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn import base

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.container import TARGET_OPSET, identity
from edgepack.converter.sklearn_model.converters.methods import offers
from edgepack.converter.sklearn_model.converters.writer import ML, Value, Writer

ORIGINALS: dict[Any, tuple[str, Any]] = {}  # class → skl2onnx's own operator and parser


@contextmanager
def _as_skl2onnx_has_it(kind: Any) -> Iterator[None]:  # noqa: ANN401
    """For a method that no family has of an estimator of which another method has one."""
    if kind not in ORIGINALS:
        yield
        return
    name, parser = sklearn_operator_name_map[kind], sklearn_parsers_map.get(kind)
    sklearn_operator_name_map[kind], sklearn_parsers_map[kind] = ORIGINALS[kind]
    if sklearn_parsers_map[kind] is None:
        del sklearn_parsers_map[kind]
    try:
        yield
    finally:
        sklearn_operator_name_map[kind], sklearn_parsers_map[kind] = name, parser


def by_skl2onnx(writer: Writer, model: Any, method: str, x: Value) -> Value:  # noqa: ANN401
    """What skl2onnx writes for a whole estimator, as part of this graph."""
    if method == "decision" and offers(model, "proba"):
        raise UnsupportedModelError(f"{type(model).__name__} has no ONNX form of {method}")
    double = x.dtype == np.float64
    number = DoubleTensorType if double else FloatTensorType
    features = int(getattr(model, "n_features_in_", 0)) or None
    options = {id(model): {"zipmap": False}} if base.is_classifier(model) else None
    initial = [("x", number([None, features]))]
    with _as_skl2onnx_has_it(type(model)):
        try:
            found = convert_sklearn(
                model, initial_types=initial, target_opset=TARGET_OPSET, options=options
            )
        except NameError:  # a classifier that knows no zipmap
            found = convert_sklearn(model, initial_types=initial, target_opset=TARGET_OPSET)
    prefix = writer.sink.name("part") + "_"
    inner = compose.add_prefix(found, prefix)
    for tensor in inner.graph.initializer:
        writer.sink.constant(tensor)
    writer.sink.node(identity(x.name, inner.graph.input[0].name))
    for node in inner.graph.node:
        writer.sink.node(node)
    outputs = inner.graph.output
    if method in ("proba", "decision"):
        value = Value(writer, outputs[1].name, _dtype(outputs[1])).floats()
        if method == "decision" and len(model.classes_) == 2:
            return value.take(np.array(-1), axis=1)
        return value
    value = Value(writer, outputs[0].name, _dtype(outputs[0]))
    if method == "index":
        return _index(writer, np.asarray(model.classes_), value)
    if method == "label" or (method == "value" and _gives_vector(model)):
        return value.reshape(-1) if method == "label" else value.floats().reshape(-1)
    return value.floats()


def _gives_vector(model: Any) -> bool:  # noqa: ANN401
    return np.ndim(model.predict(np.zeros((1, int(model.n_features_in_))))) == 1


def _index(writer: Writer, classes: Any, label: Value) -> Value:  # noqa: ANN401
    places = list(range(len(classes)))
    if classes.dtype.kind in "OUS":
        keys: dict[str, Any] = {"keys_strings": [str(item) for item in classes.tolist()]}
    else:
        keys = {"keys_int64s": [int(item) for item in classes.tolist()]}
    return writer.op(
        "LabelEncoder", label.reshape(-1), domain=ML, dtype="int64", values_int64s=places, **keys
    )


def _dtype(output: Any) -> Any:  # noqa: ANN401
    return {
        TensorProto.FLOAT: np.float32,
        TensorProto.DOUBLE: np.float64,
        TensorProto.INT64: np.int64,
        TensorProto.STRING: np.object_,
    }[output.type.tensor_type.elem_type]
