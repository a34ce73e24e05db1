"""XGBoost behind a step that gives sparse matrices: what is not stored there is missing, not 0.

LightGBM and CatBoost take it for 0, as scikit-learn does, and as the dense tensors of ONNX say it.
For XGBoost the zeros must become missing values again.
"""

from typing import Any

import numpy as np
from sklearn.pipeline import FeatureUnion, Pipeline

from edgepack.converter.gbm_model.library_of import library_of

_ALWAYS = frozenset({"CountVectorizer", "TfidfVectorizer", "RandomTreesEmbedding"})
# These give what they get; all others give dense arrays.
_KEEP = frozenset(
    {
        "FunctionTransformer",
        "GenericUnivariateSelect",
        "MaxAbsScaler",
        "Normalizer",
        "PolynomialFeatures",
        "RFE",
        "RFECV",
        "RobustScaler",
        "SelectFdr",
        "SelectFpr",
        "SelectFromModel",
        "SelectFwe",
        "SelectKBest",
        "SelectPercentile",
        "SequentialFeatureSelector",
        "SimpleImputer",
        "StandardScaler",
        "TfidfTransformer",
        "VarianceThreshold",
    }
)


def zeros_are_missing(model: Any, *, given_sparse: bool = False) -> None:  # noqa: ANN401
    """Make XGBoost's models take 0 for missing where they get sparse matrices, in place.

    Args:
        model: Fitted; a copy for the export.
        given_sparse: Whether what it gets is sparse.
    """
    if isinstance(model, Pipeline):
        for _, step in model.steps:
            if not isinstance(step, str) and step is not None:
                zeros_are_missing(step, given_sparse=given_sparse)
                given_sparse = gives_sparse(step, given_sparse=given_sparse)
        return
    if library_of(model) == "xgboost":
        if given_sparse:
            model.missing = 0.0
        return
    held = [getattr(model, name, None) for name in ("best_estimator_", "estimator_", "estimator")]
    for item in [*held, *_listed(model)]:
        if hasattr(item, "predict"):
            zeros_are_missing(item, given_sparse=given_sparse)


def gives_sparse(step: Any, *, given_sparse: bool) -> bool:  # noqa: ANN401
    """Whether a fitted transformer gives sparse matrices."""
    if isinstance(step, Pipeline):
        for _, inner in step.steps:
            if not isinstance(inner, str) and inner is not None:
                given_sparse = gives_sparse(inner, given_sparse=given_sparse)
        return given_sparse
    if isinstance(step, FeatureUnion):
        parts = [inner for _, inner in step.transformer_list if not isinstance(inner, str)]
        return any(gives_sparse(inner, given_sparse=given_sparse) for inner in parts)
    name = type(step).__name__
    if name == "ColumnTransformer":
        return bool(getattr(step, "sparse_output_", False))
    if name == "KBinsDiscretizer":
        return bool(step.encode == "onehot")
    if hasattr(step, "sparse_output"):  # the encoders
        return bool(step.sparse_output)
    return name in _ALWAYS or (given_sparse and name in _KEEP)


def _listed(model: Any) -> list[Any]:  # noqa: ANN401
    found: list[Any] = []
    inner = getattr(model, "estimators_", None)
    for item in () if inner is None else inner:  # GradientBoosting's is a matrix of trees
        found += list(item) if isinstance(item, list | tuple | np.ndarray) else [item]
    for item in getattr(model, "calibrated_classifiers_", None) or ():
        found.append(item.estimator)
    return found
