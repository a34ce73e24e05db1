"""Teaches skl2onnx the wrappers of XGBoost, LightGBM and CatBoost, so that pipelines take them."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import is_classifier

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.graph import add_classes, add_value
from edgepack.converter.gbm_model.part import ML_DOMAIN, Part
from edgepack.converter.gbm_model.read import ensemble_of

_CLASSES = {
    "xgboost": (
        "XGBClassifier",
        "XGBRegressor",
        "XGBRanker",
        "XGBRFClassifier",
        "XGBRFRegressor",
    ),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    "catboost": ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"),
}
_ML_OPSET = 3
_ZIPMAP = {"zipmap": [True, False, "columns"]}


def register_boosters() -> None:
    """Register the wrappers of the libraries that are imported; a model that uses one has done so.

    Doing it again does no harm.
    """
    importlib.import_module("edgepack.converter.gbm_model.methods")
    for library, kind in _imported():
        update_registered_converter(
            kind,
            f"Edgepack{library.capitalize()}{kind.__name__}",
            _set_types,
            _convert,
            parser=_parse,
            options=_ZIPMAP,
        )


def _imported() -> Iterator[tuple[str, type]]:
    for library, names in _CLASSES.items():
        module = sys.modules.get(library)
        for name in names:
            kind = getattr(module, name, None)
            if isinstance(kind, type):
                yield library, kind


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ANN401
    from skl2onnx._supported_operators import _get_sklearn_operator_name

    operator = scope.declare_local_operator(_get_sklearn_operator_name(type(model)), model)
    operator.inputs = inputs
    number = _number_type(inputs)
    if is_classifier(model):
        operator.outputs.append(scope.declare_local_variable("label", _label_type(model)))
        operator.outputs.append(scope.declare_local_variable("probabilities", number()))
    else:
        operator.outputs.append(scope.declare_local_variable("variable", number()))
    return operator.outputs


def _set_types(operator: Any) -> None:  # noqa: ANN401
    model = operator.raw_operator
    number = _number_type(operator.inputs)
    if is_classifier(model):
        operator.outputs[0].type = _label_type(model, [None])
        operator.outputs[1].type = number([None, len(model.classes_)])
    else:
        operator.outputs[0].type = number([None, ensemble_of(model).targets])


def _convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
    model = operator.raw_operator
    ensemble = ensemble_of(model)
    wide = _number_type(operator.inputs) is DoubleTensorType
    part = Part(prefix=scope.get_unique_operator_name("edgepack_trees"))
    x = _one_matrix(part, operator.inputs, wide=wide)
    dtype = np.float64 if wide else np.float32
    names = [variable.full_name for variable in operator.outputs]
    if is_classifier(model):
        classes = np.asarray(model.classes_)
        add_classes(
            part, ensemble, x, dtype, classes=classes, label=names[0], probabilities=names[1]
        )
    else:
        add_value(part, ensemble, x, dtype, output=names[0])
    container.nodes.extend(part.nodes)
    container.initializers.extend(part.initializers)
    container.node_domain_version_pair_sets |= {
        (ML_DOMAIN, _ML_OPSET),
        ("", container.target_opset),
    }


def _one_matrix(part: Part, inputs: Any, *, wide: bool) -> str:  # noqa: ANN401
    from onnx import TensorProto

    kind = DoubleTensorType if wide else FloatTensorType
    columns = [
        variable.full_name
        if isinstance(variable.type, kind)
        else part.add(
            "Cast", variable.full_name, to=TensorProto.DOUBLE if wide else TensorProto.FLOAT
        )
        for variable in inputs
    ]
    return columns[0] if len(columns) == 1 else part.add("Concat", *columns, axis=1)


def _number_type(inputs: Any) -> Any:  # noqa: ANN401
    if any(isinstance(variable.type, StringTensorType) for variable in inputs):
        raise UnsupportedModelError(
            "gradient boosting takes numbers, got text: encode it in the pipeline before the model"
        )
    wide = any(isinstance(variable.type, DoubleTensorType) for variable in inputs)
    return DoubleTensorType if wide else FloatTensorType


def _label_type(model: Any, shape: list[int | None] | None = None) -> Any:  # noqa: ANN401
    is_text = np.asarray(model.classes_).dtype.kind in "OU"
    return (StringTensorType if is_text else Int64TensorType)(shape)
