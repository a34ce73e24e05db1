"""Dummies: answers that look at no row."""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


def _rows(x: Value) -> Value:
    """Zeros (N, 1); NaN and infinity of the rows do not pass."""
    first = x.columns([0])
    return (first.is_nan()).floats() * 0.0


@writes("proba", "DummyClassifier")
def proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The same for all rows."""
    if model._strategy in ("stratified", "uniform") and model._strategy == "stratified":
        raise UnsupportedModelError(
            "DummyClassifier(strategy='stratified') draws its answers by chance"
        )
    row = model.predict_proba(np.zeros((1, 1)))
    return _rows(x) + writer.const(np.asarray(row, dtype=np.float64))


@writes("index", "DummyClassifier")
def index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The same for all rows."""
    if model._strategy in ("stratified", "uniform"):
        raise UnsupportedModelError(
            f"DummyClassifier(strategy={model._strategy!r}) draws its answers by chance"
        )
    return proba(writer, model, x).argmax()


@writes("index", "_ConstantPredictor")
def constant_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The one class there was."""
    return (_rows(x).reshape(-1) + float(np.ravel(model.y_)[0])).cast(np.int64)


@writes("decision", "_ConstantPredictor")
def constant_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The one class there was."""
    return _rows(x).reshape(-1) + float(np.ravel(model.y_)[0])


@writes("proba", "_ConstantPredictor")
def constant_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Certain."""
    one = float(np.ravel(model.y_)[0])
    return _rows(x) + writer.const(np.array([[1 - one, one]]))


@writes("value", "DummyRegressor")
def value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The same for all rows."""
    row = np.asarray(model.constant_, dtype=np.float64).reshape(1, -1)
    found = _rows(x) + writer.const(row)
    return found.reshape(-1) if model.n_outputs_ == 1 else found
