"""A fitted estimator behind the `LoadedModel` Protocol."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from joblib import parallel_config
from sklearn import base
from sklearn.pipeline import Pipeline

from edgepack.bundle.contract import Task
from edgepack.converter.errors import UnfitDataError, UnsupportedModelError, one_line
from edgepack.converter.gbm_model.hashed_categories import with_whole_numbers
from edgepack.converter.gbm_model.wrappers import column_names, library_versions
from edgepack.converter.sklearn_model.columns import (
    needed_columns,
    takes_texts,
    text_columns,
)
from edgepack.converter.sklearn_model.export import export_onnx
from edgepack.converter.sklearn_model.hashed_models import hashed_categories
from edgepack.converter.sklearn_model.missing_text import missing_marks, with_missing
from edgepack.converter.sklearn_model.own_categories import as_categories, own_categories
from edgepack.converter.sklearn_model.several_labels import (
    gives_several_labels,
    several_answers,
)
from edgepack.converter.sources.source import Exported, ExportWish, ModelFacts
from edgepack.runtime.tensors import Array

_PACKAGES = ("scikit-learn", "numpy", "scipy", "joblib", "skl2onnx", "onnx")
_MIXTURES = ("BayesianGaussianMixture", "GaussianMixture")  # density estimators with predict
_SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")


class SklearnModel:
    """A fitted scikit-learn estimator."""

    def __init__(self, estimator: Any, *, messages: tuple[str, ...] = ()) -> None:  # noqa: ANN401
        if type(estimator).__name__ in _SEARCHES and hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_  # what its predict asks
        self._model = estimator
        self._kept = needed_columns(estimator)
        self._categories = own_categories(estimator)
        hashed = set(hashed_categories(estimator))
        self._hashed = tuple(p for p, column in enumerate(self._kept) if column in hashed)
        marks = missing_marks(estimator)
        self._missing = {
            place: marks[column] for place, column in enumerate(self._kept) if column in marks
        }
        self.facts = self._facts(messages)

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        rows = self._rows(with_missing(inputs, self._missing))
        try:
            # Some estimators would start processes for n_jobs; threads do, and stay in the limits.
            with parallel_config(backend="threading"):
                return _answers(self._model, task, rows)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError) as exc:
            raise UnfitDataError(f"the model refuses the data: {one_line(exc)}") from exc

    def export(self, wish: ExportWish) -> Exported:
        """Export to ONNX: see `LoadedModel`."""
        return export_onnx(self._model, wish, kept=self._kept)

    def _facts(self, messages: tuple[str, ...]) -> ModelFacts:
        model = self._model
        names = column_names(model)
        text = set(text_columns(model))
        place = {column: index for index, column in enumerate(self._kept)}
        features = 1 if takes_texts(model) else getattr(model, "n_features_in_", None)
        if names and len(self._kept) < len(names):
            unused = [name for index, name in enumerate(names) if index not in place]
            messages = (*messages, f"the model drops these of its columns: {', '.join(unused)}")
        classes = getattr(model, "classes_", ())
        task = _task(model)
        return ModelFacts(
            framework="scikit-learn",
            description=_describe(model),
            task=task,
            packages={name: version(name) for name in _PACKAGES} | library_versions(),
            messages=messages,
            class_names=_class_names(classes) if task is Task.CLASSIFICATION else (),
            features=None if features is None else len(self._kept),
            feature_names=tuple(names[index] for index in self._kept) if names else (),
            category_features=self._hashed,
            text_features=tuple(place[column] for column in sorted(text) if column in place),
        )

    def _rows(self, inputs: Mapping[str, Array]) -> Any:  # noqa: ANN401  (array or DataFrame)
        names = self.facts.feature_names
        if takes_texts(self._model):
            return next(iter(inputs.values()))[:, 0]
        if not names:
            parts = list(inputs.values())
            whole = parts[0] if len(parts) == 1 else np.concatenate(_as_objects(parts), axis=1)
            return with_whole_numbers(whole, self._hashed)
        from pandas import DataFrame

        if list(inputs) == ["x"]:
            frame = DataFrame(inputs["x"], columns=list(names))
        else:
            # In the model's order; LightGBM's names differ from the data's where those have spaces.
            columns = {n: a[:, 0] for n, a in zip(names, inputs.values(), strict=True)}
            if set(names) == set(inputs):
                columns = {name: inputs[name][:, 0] for name in names}
            frame = DataFrame(columns)
        frame = with_whole_numbers(frame, self._hashed)
        return as_categories(frame, self._model, self._categories)


def _as_objects(parts: Sequence[Array]) -> list[Array]:
    has_text = any(part.dtype == np.object_ for part in parts)
    return [part.astype(np.object_) if has_text else part for part in parts]


def _task(model: Any) -> Task:  # noqa: ANN401
    if gives_several_labels(model):
        return Task.GENERIC
    if base.is_classifier(model):
        return Task.CLASSIFICATION
    if base.is_regressor(model):
        return Task.REGRESSION
    if base.is_outlier_detector(model):
        return Task.OUTLIER
    kind = getattr(base, "is_clusterer", None)  # scikit-learn 1.6 and later
    is_clusterer = kind(model) if kind else getattr(model, "_estimator_type", "") == "clusterer"
    if is_clusterer or type(model).__name__ in _MIXTURES:
        if not hasattr(model, "predict") and hasattr(model, "transform"):
            return Task.TRANSFORM  # FeatureAgglomeration: clusters of columns
        if not hasattr(model, "predict"):
            raise UnsupportedModelError(
                f"{type(model).__name__} has no predict: it labels only the rows it was fitted on"
            )
        return Task.CLUSTERING
    if hasattr(model, "predict"):
        return Task.REGRESSION
    if hasattr(model, "transform"):
        return Task.TRANSFORM
    raise UnsupportedModelError(f"{type(model).__name__} has neither predict nor transform")


def _answers(model: Any, task: Task, rows: Any) -> dict[str, Array]:  # noqa: ANN401
    if task is Task.TRANSFORM:
        found = model.transform(rows)
        dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
        return {"value": np.asarray(dense, dtype=np.float64)}
    if gives_several_labels(model):
        return several_answers(model, rows)
    answer = np.asarray(model.predict(rows))
    if task is Task.REGRESSION:
        value = answer.astype(np.float64)
        return {"value": value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value}
    if answer.ndim == 2 and answer.shape[1] == 1:  # CatBoost's of several classes
        answer = answer[:, 0]
    if answer.ndim != 1:
        native = ": convert the file of its save_model instead" if _is_xgboost(model) else ""
        name = type(model).__name__
        raise UnsupportedModelError(
            f"{name} with {answer.shape[1]} labels a row has no ONNX form here{native}"
        )
    outputs = {"label": _as_labels(answer)}
    if task is Task.CLASSIFICATION and hasattr(model, "predict_proba"):
        return {**outputs, "probabilities": np.asarray(model.predict_proba(rows), np.float64)}
    if task is Task.CLUSTERING and type(model).__name__ in _MIXTURES:
        return {**outputs, "scores": np.asarray(model.predict_proba(rows), np.float64)}
    if task is Task.CLUSTERING and hasattr(model, "transform"):
        return {**outputs, "scores": np.asarray(model.transform(rows), np.float64)}
    if hasattr(model, "decision_function") and task is not Task.CLUSTERING:
        scores = np.asarray(model.decision_function(rows), np.float64)
        return {**outputs, "scores": scores.reshape(len(scores), -1)}
    return outputs


def _is_xgboost(model: Any) -> bool:  # noqa: ANN401
    return type(model).__name__ in ("XGBClassifier", "XGBRFClassifier")


def _as_labels(labels: Array) -> Array:
    """Classes as ONNX gives them: text, or int64 (True is 1, 2.0 is 2)."""
    if labels.dtype.kind in "OU":
        if all(isinstance(label, str) for label in labels.tolist()):
            return labels.astype(np.object_)
        labels = np.array([float(label) for label in labels.tolist()])
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise UnsupportedModelError("class labels must be text or whole numbers, got fractions")
    return labels.astype(np.int64)


def _class_names(classes: Any) -> tuple[str, ...]:  # noqa: ANN401
    return tuple(str(label) for label in _as_labels(np.asarray(classes)).tolist())


def _describe(model: Any, depth: int = 0) -> str:  # noqa: ANN401
    name = type(model).__name__
    if depth < 2 and isinstance(model, Pipeline):
        steps = [
            step if isinstance(step, str) else _describe(step, depth + 1) for _, step in model.steps
        ]
        return f"{name}({', '.join(steps)})"
    return name
