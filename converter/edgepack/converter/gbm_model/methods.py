"""The wrappers' methods for estimators that hold one: voting, stacking, calibration and so on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble
from edgepack.converter.gbm_model.graph import add_classes, add_sums, add_value, reached
from edgepack.converter.gbm_model.lookups import add_lookups
from edgepack.converter.gbm_model.part import Part
from edgepack.converter.gbm_model.read import ensemble_of
from edgepack.converter.sklearn_model.converters import leaves
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
    ensemble, x = ensemble_of(model), x.floats()
    if _adds_in_float64(ensemble, x):
        found = _exact_sums(writer, ensemble, x)
        return found.reshape(-1) if ensemble.targets == 1 else found
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
    ensemble = ensemble_of(model)
    wide = _adds_in_float64(ensemble, x)
    add_classes(
        part,
        ensemble,
        x.name,
        x.dtype,
        classes=places,
        label=index,
        probabilities=proba,
        exact_sums=_exact_sums(writer, ensemble, x).name if wide else None,
    )
    _pour(part, writer)
    return Value(writer, index, np.int64), Value(writer, proba, x.dtype)


def _adds_in_float64(ensemble: Ensemble, x: Value) -> bool:
    """Whether the library's sums are more exact than the operator's; XGBoost's are not."""
    return bool(ensemble.trees) and x.dtype == np.float64 and not ensemble.strict


def _exact_sums(writer: Writer, ensemble: Ensemble, x: Value) -> Value:
    """The sums of the leaves, float64 (N, T): isotonic steps are steeper than float32 is exact."""
    found = []
    for tree in map(reached, ensemble.trees):
        leaf = tree.feature == LEAF
        values = np.zeros((len(leaf), ensemble.targets))
        values[:, tree.target : tree.target + tree.value.shape[1]] = tree.value
        found.append(
            leaves.Tree(
                left=tree.yes,
                right=tree.no,
                feature=np.where(leaf, 0, tree.feature),
                threshold=tree.threshold,
                missing_left=tree.missing_yes,
                leaf=leaf,
                values=values,
            )
        )
    seen = x if ensemble.float64 else x.cast(np.float32)
    if ensemble.lookups is not None:
        part = Part(prefix=writer.sink.name("categories"))
        wider = add_lookups(part, ensemble.lookups, seen.name)
        _pour(part, writer)
        seen = Value(writer, wider, seen.dtype)
    base = writer.const(ensemble.base.reshape(1, -1))
    return leaves.leaf_values(writer, seen, found).sum() + base


def _pour(part: Part, writer: Writer) -> None:
    for node in part.nodes:
        writer.sink.node(node)
    for tensor in part.initializers:
        writer.sink.constant(tensor)
