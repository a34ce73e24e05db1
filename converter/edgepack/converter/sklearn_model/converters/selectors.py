"""Transformers that keep some of the columns."""

from typing import Any

import numpy as np

from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


@writes(
    "transform",
    "GenericUnivariateSelect",
    "RFE",
    "RFECV",
    "SelectFdr",
    "SelectFpr",
    "SelectFromModel",
    "SelectFwe",
    "SelectKBest",
    "SelectPercentile",
    "SequentialFeatureSelector",
    "VarianceThreshold",
)
def selected(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The chosen columns."""
    return x.columns(np.flatnonzero(model.get_support()))
