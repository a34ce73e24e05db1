"""Estimators that can predict and transform, where a pipeline only asks them to transform.

skl2onnx takes a KMeans or a LinearDiscriminantAnalysis in the middle of a pipeline for what it is
at the end of one, and hands labels on.
"""

from typing import Any

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from edgepack.converter.sklearn_model.converters.methods import call, writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


class AsTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A fitted estimator of which only `transform` is asked."""

    def __init__(self, estimator: Any = None) -> None:  # noqa: ANN401
        self.estimator = estimator

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return int(self.estimator.n_features_in_)

    def get_feature_names_out(self, names: Any = None) -> Any:  # noqa: ANN401
        """What the estimator calls its columns."""
        return self.estimator.get_feature_names_out(names)

    def transform(self, x: Any) -> Any:  # noqa: ANN401
        """The estimator's."""
        return self.estimator.transform(x)


@writes("transform", "AsTransformer")
def inner_transform(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The estimator's transform."""
    return call(writer, model.estimator, "transform", x)


def as_transformers(model: Any) -> Any:  # noqa: ANN401
    """The model with such steps marked; containers are changed in place.

    Args:
        model: A copy that may be changed.
    """
    if isinstance(model, Pipeline):
        steps = [item for item in model.steps if item[1] not in (None, "passthrough")]
        steps = steps or model.steps[-1:]
        model.steps = [
            (name, as_transformers(step) if place == len(steps) - 1 else _marked(step))
            for place, (name, step) in enumerate(steps)
        ]
    elif isinstance(model, ColumnTransformer):
        model.transformers_ = [
            (name, _marked(step), columns) for name, step, columns in model.transformers_
        ]
    elif isinstance(model, FeatureUnion):
        model.transformer_list = [(name, _marked(step)) for name, step in model.transformer_list]
    return model


def _marked(step: Any) -> Any:  # noqa: ANN401
    if step is None or isinstance(step, str):
        return step
    if isinstance(step, Pipeline):
        step.steps = [(name, _marked(inner)) for name, inner in step.steps]
        return step
    if isinstance(step, (ColumnTransformer, FeatureUnion)):
        return as_transformers(step)
    return AsTransformer(step) if hasattr(step, "predict") else step
