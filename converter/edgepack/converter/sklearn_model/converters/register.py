"""Makes skl2onnx ask the families here, and the families ask skl2onnx for what they lack."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx._parse import _parse_sklearn_simple_model, sklearn_parsers_map
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn import base

from edgepack.converter.sklearn_model.converters.container import ContainerSink, identity
from edgepack.converter.sklearn_model.converters.fallback import ORIGINALS, by_skl2onnx
from edgepack.converter.sklearn_model.converters.methods import (
    call,
    knows,
    offers,
    use_fallback,
)
from edgepack.converter.sklearn_model.converters.several_labels import several_outputs
from edgepack.converter.sklearn_model.converters.transformers import AsTransformer
from edgepack.converter.sklearn_model.converters.writer import TEXT, Value, Writer
from edgepack.converter.sklearn_model.several_labels import (
    are_text,
    gives_several_labels,
    probability_names,
    target_classes,
)

_FAMILIES = (
    "clusters",
    "constant",
    "decompositions",
    "ensembles",
    "features",
    "functions",
    "gaussian",
    "histograms",
    "imputers",
    "kernels",
    "linear",
    "neighbours",
    "outliers",
    "pairs",
    "projections",
    "selectors",
    "several_labels",
    "splines",
    "support_vectors",
    "texts",
    "trees",
    "wrappers",
)
# Families write these too, for what holds one of them; alone, skl2onnx's operator is smaller and
# quicker, and as exact where the inputs are float32.
_OURS_IN_FLOAT64 = frozenset(
    {
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
        "IsolationForest",
        "RandomForestClassifier",
        "RandomForestRegressor",
        "SimpleImputer",
        "TargetEncoder",
        "OneVsRestClassifier",
        # Others read skl2onnx's operators of these: the quantizer, the writer of TFLite files.
        "Binarizer",
        "LinearSVC",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MaxAbsScaler",
        "MinMaxScaler",
        "Normalizer",
        "PassiveAggressiveClassifier",
        "Perceptron",
        "PolynomialFeatures",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "RobustScaler",
        "SGDClassifier",
        "StandardScaler",
        "NuSVR",
        "SVR",
        "VarianceThreshold",
    }
)
_SEVERAL_ONLY = frozenset({"MLPClassifier"})  # ours writes only those of several labels
_EITHER = _OURS_IN_FLOAT64 | _SEVERAL_ONLY
_THEIRS = frozenset({"Pipeline", "ColumnTransformer", "FeatureUnion"})
_REGISTERED: set[type] = set()
_METHODS = ("index", "label", "value", "transform", "decision", "proba")
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
    "nocl": [True, False],
    "output_class_labels": [True, False],
    "decision_path": [True, False],
    "decision_leaf": [True, False],
    "score_samples": [True, False],
}


def register_converters() -> None:
    """Tell skl2onnx of every estimator that a family here writes, of those that are imported.

    A model that was loaded has imported its estimators. To import all of scikit-learn for the
    others would take a second, and torch with it where torch is installed.
    """
    for family in _FAMILIES:
        importlib.import_module(f"edgepack.converter.sklearn_model.converters.{family}")
    use_fallback(by_skl2onnx)
    for kind in [*_imported_estimators(), AsTransformer]:
        name = kind.__name__
        if kind in _REGISTERED or name in _THEIRS or not knows(name):
            continue
        _REGISTERED.add(kind)
        old = sklearn_operator_name_map.get(kind)
        if old is not None:
            ORIGINALS[kind] = (old, sklearn_parsers_map.get(kind))
        shapes, convert, options = _shapes, _convert, _OPTIONS
        if old is not None and name in _EITHER:
            shapes, convert = _ours_in_float64(old)
            options = {**_OPTIONS, **(get_converter(old).get_allowed_options() or {})}
        update_registered_converter(
            kind, f"Edgepack{name}", shapes, convert, parser=_parse, options=options
        )


def _imported_estimators() -> list[type]:
    """Every public estimator of a scikit-learn module that is imported, by name."""
    found: dict[str, type] = {}
    for module, content in list(sys.modules.items()):
        if not module.startswith("sklearn.") or content is None:
            continue
        for name, kind in list(vars(content).items()):
            if not isinstance(kind, type) or name.startswith("_"):
                continue
            if issubclass(kind, base.BaseEstimator) and kind.__module__.startswith("sklearn."):
                found[kind.__name__] = kind
    return [found[name] for name in sorted(found)]


def _ours_in_float64(old: str) -> tuple[Any, Any]:
    their_shapes, their_convert = get_shape_calculator(old), get_converter(old)

    def shapes(operator: Any) -> None:  # noqa: ANN401
        if _is_ours(operator):
            _shapes(operator)
        else:
            with _named(operator, old):
                their_shapes(operator)

    def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        if _is_ours(operator):
            _convert(scope, operator, container)
        else:
            with _named(operator, old):
                their_convert(scope, operator, container)

    return shapes, convert


@contextmanager
def _named(operator: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """Some of their converters ask the operator for its name."""
    ours, operator.type = operator.type, name
    try:
        yield
    finally:
        operator.type = ours


def _is_ours(operator: Any) -> bool:  # noqa: ANN401
    """Whether a family writes it: skl2onnx's imputer forgets the indicators and empty columns."""
    model = operator.raw_operator
    if type(model).__name__ in _SEVERAL_ONLY or gives_several_labels(model):
        return gives_several_labels(model)
    if type(model).__name__ == "SimpleImputer" and not _is_text(operator):
        values = np.asarray(model.statistics_, dtype=np.float64)
        if model.add_indicator or np.isnan(values).any():
            return True
    return _is_double(operator)


def _is_text(operator: Any) -> bool:  # noqa: ANN401
    return isinstance(operator.inputs[0].type, StringTensorType)


def _is_double(operator: Any) -> bool:  # noqa: ANN401
    return isinstance(operator.inputs[0].type, DoubleTensorType)


def kind_of(model: Any) -> str:  # noqa: ANN401
    """What the estimator gives for new rows: "index", "label", "value" or "transform"."""
    if base.is_classifier(model):
        return "index"
    if base.is_outlier_detector(model) or type(model).__name__.endswith("GaussianMixture"):
        return "label"
    if base.is_clusterer(model) and hasattr(model, "predict"):
        return "label"
    return "value" if base.is_regressor(model) or not hasattr(model, "transform") else "transform"


def _output_methods(model: Any) -> list[str]:  # noqa: ANN401
    if gives_several_labels(model):
        return ["labels", *probability_names(model)]
    kind = kind_of(model)
    if kind == "index":
        scores = next((name for name in ("proba", "decision") if offers(model, name)), None)
        return [kind] if scores is None else [kind, scores]
    if kind == "label":
        order = ("transform",) if base.is_clusterer(model) else ("decision", "proba")
        scores = next((name for name in order if offers(model, name)), None)
        return [kind] if scores is None else [kind, scores]
    return [kind]


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ANN401
    name, old = type(model).__name__, ORIGINALS.get(type(model))
    if old is not None and name in _EITHER and not gives_several_labels(model):
        # Which of both converts shows when types are settled; the outputs are the same.
        return _parse_sklearn_simple_model(
            scope, model, _merged(scope, inputs), custom_parsers, alias=f"Edgepack{name}"
        )
    operator = scope.declare_local_operator(f"Edgepack{name}", model)
    operator.inputs.extend(_merged(scope, inputs))
    for method in _output_methods(model):
        operator.outputs.append(
            scope.declare_local_variable(method, _type_of(model, method, operator.inputs))
        )
    return operator.outputs


def _merged(scope: Any, inputs: Any) -> Any:  # noqa: ANN401
    if len(inputs) == 1:
        return inputs
    concat = scope.declare_local_operator("SklearnConcat")
    concat.inputs = inputs
    width = [item.type.shape[1] if len(item.type.shape) == 2 else None for item in inputs]
    total = None if None in width else sum(item or 0 for item in width)
    merged = scope.declare_local_variable("merged", inputs[0].type.__class__([None, total]))
    concat.outputs.append(merged)
    return [merged]


def _type_of(model: Any, method: str, inputs: Any) -> Any:  # noqa: ANN401
    double = isinstance(inputs[0].type, DoubleTensorType)
    floats = DoubleTensorType if double else FloatTensorType
    if method == "label":
        return Int64TensorType([None])
    if method == "labels":
        classes = target_classes(model)
        return (StringTensorType if are_text(classes) else Int64TensorType)([None, len(classes)])
    if method == "index":
        text = np.asarray(model.classes_).dtype.kind in "OUS"
        return (StringTensorType if text else Int64TensorType)([None])
    return floats([None, _width(model, method)])


def _width(model: Any, method: str) -> int | None:  # noqa: ANN401
    if method == "proba":
        return len(model.classes_) if hasattr(model, "classes_") else None
    if method == "decision":
        return None
    if method == "value":
        return None
    if type(model).__name__ == "HashingVectorizer":
        return int(model.n_features)
    try:
        return len(model.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):
        return None


def _shapes(operator: Any) -> None:  # noqa: ANN401
    model = operator.raw_operator
    for method, output in zip(_output_methods(model), operator.outputs, strict=True):
        output.type = _type_of(model, method, operator.inputs)


def _convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
    model = operator.raw_operator
    dtype = np.float64 if _is_double(operator) else np.float32
    writer = Writer(ContainerSink(scope, container), dtype)
    given = operator.inputs[0]
    kind = {StringTensorType: TEXT, Int64TensorType: np.int64}.get(type(given.type), dtype)
    x = Value(writer, given.full_name, kind)
    if x.dtype.kind == "i":
        x = x.floats()
    if gives_several_labels(model):
        several = several_outputs(writer, model, x)
        for value, output in zip(several, operator.outputs, strict=True):
            writer.sink.node(identity(value.name, output.full_name))
        return
    for method, output in zip(_output_methods(model), operator.outputs, strict=True):
        found = call(writer, model, method, x)
        if method == "index":
            found = _labels(writer, model, found)
        elif method != "label":
            found = found.floats()
            if method in ("decision", "value") and _is_vector(model, method):
                found = found.reshape(-1, 1)
        writer.sink.node(identity(found.name, output.full_name))


def _is_vector(model: Any, method: str) -> bool:  # noqa: ANN401
    if method == "decision":
        return len(getattr(model, "classes_", ())) <= 2
    return False


def _labels(writer: Writer, model: Any, index: Value) -> Value:  # noqa: ANN401
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "OUS":
        names = np.array([str(item) for item in classes.tolist()], dtype=np.object_)
        return writer.const(names).take(index)
    return writer.const(classes.astype(np.int64)).take(index)
