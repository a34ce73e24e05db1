"""What the libraries' scikit-learn wrappers say of themselves otherwise than scikit-learn does."""

import sys
from typing import Any

from sklearn.pipeline import Pipeline

from edgepack.converter.gbm_model.library_of import LIBRARIES, library_of


def column_names(model: Any) -> list[str]:  # noqa: ANN401
    """Names of the columns that an estimator was fitted on, or none."""
    first = model
    while isinstance(first, Pipeline):
        steps = [step for _, step in first.steps if step is not None and not isinstance(step, str)]
        if not steps:
            return []
        first = steps[0]
    if library_of(first) == "catboost":
        names = [str(name) for name in first.feature_names_ or ()]
        return [] if names == [str(index) for index in range(len(names))] else names
    named = model if hasattr(model, "feature_names_in_") else first
    return [str(name) for name in getattr(named, "feature_names_in_", ())]


def is_fitted_catboost(model: Any) -> bool:  # noqa: ANN401
    """Whether a model is CatBoost's and fitted, which scikit-learn's own test does not see."""
    return library_of(model) == "catboost" and bool(model.is_fitted())


def restore_counts(model: Any) -> None:  # noqa: ANN401
    """Tell CatBoost's models how many columns they take: a pickled one says 0."""
    if library_of(model) == "catboost":
        if model.is_fitted():
            model._n_features_in = len(model.feature_names_)
        return
    inner = getattr(model, "estimators_", None)  # GradientBoosting's is a matrix of its own trees
    held = [getattr(model, "best_estimator_", None), *(inner if isinstance(inner, list) else ())]
    if isinstance(model, Pipeline):
        held += [step for _, step in model.steps]
    for item in held:
        if hasattr(item, "predict"):
            restore_counts(item)


def library_versions() -> dict[str, str]:
    """The libraries that are imported, which a model does that uses them."""
    return {name: str(sys.modules[name].__version__) for name in LIBRARIES if name in sys.modules}
