"""The wrappers' methods for estimators that hold one: voting, stacking, calibration and so on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.converter.gbm_model.ensemble import Ensemble
from edgepack.converter.gbm_model.graph import Part, add_classes, add_sums, add_value
from edgepack.converter.gbm_model.read import ensemble_of
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_CLASSIFIERS = ("XGBClassifier", "XGBRFClassifier", "LGBMClassifier", "CatBoostClassifier")
_REGRESSORS = (
    "XGBRegressor",
    "XGBRFRegressor",
    "XGBRanker",
    "LGBMRegressor",
    "LGBMRanker",
    "CatBoostRegressor",
    "CatBoostRanker",
)


@writes("value", *_REGRESSORS)
def boosted_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """What `predict` gives."""
    return _column(writer, model, x, add_value)


@writes("decision", "LGBMClassifier")
def boosted_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The sums of the leaves."""
    return _column(writer, model, x, add_sums)


@writes("index", *_CLASSIFIERS)
def boosted_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The place of the class that `predict` gives."""
    return _classes(writer, model, x)[0]


@writes("proba", *_CLASSIFIERS)
def boosted_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """What `predict_proba` gives."""
    return _classes(writer, model, x)[1]


def _column(
    writer: Writer,
    model: Any,  # noqa: ANN401
    x: Value,
    add: Callable[..., None],
) -> Value:
    ensemble: Ensemble = ensemble_of(model)
    x = x.floats()
    part = Part(prefix=writer.sink.name("boosted"))
    output = writer.sink.name("sums")
    add(part, ensemble, x.name, x.dtype, output=output)
    _pour(part, writer)
    found = Value(writer, output, x.dtype)
    return found.reshape(-1) if ensemble.targets == 1 else found


def _classes(writer: Writer, model: Any, x: Value) -> tuple[Value, Value]:  # noqa: ANN401
    x = x.floats()
    part = Part(prefix=writer.sink.name("boosted"))
    index, proba = writer.sink.name("index"), writer.sink.name("proba")
    places = np.arange(len(model.classes_))
    add_classes(
        part,
        ensemble_of(model),
        x.name,
        x.dtype,
        classes=places,
        label=index,
        probabilities=proba,
    )
    _pour(part, writer)
    return Value(writer, index, np.int64), Value(writer, proba, x.dtype)


def _pour(part: Part, writer: Writer) -> None:
    for node in part.nodes:
        writer.sink.node(node)
    for tensor in part.initializers:
        writer.sink.constant(tensor)
