"""Classifiers that give several labels a row: what they are, and what they answer.

Their answers are "label" (N, T), one column a target, and, where the model knows probabilities,
either "probabilities" (N, T), the probability that each label is there, or "probabilities_0"
(N, C), "probabilities_1" … for targets with classes of their own. What writes them as ONNX is
`converters.several_labels`.
"""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.runtime.tensors import Array

MOST_PROBABILITIES = 64  # targets with an output of their own
_INNER = {"FrozenEstimator": "estimator", "SelfTrainingClassifier": "estimator_"}
_SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")
_CHAINED = ("ClassifierChain", "MLPClassifier", "OneVsRestClassifier")


def answering(model: Any) -> Any:  # noqa: ANN401
    """The estimator that answers in the end: a pipeline's last, a search's best."""
    while True:
        name = type(model).__name__
        if name == "Pipeline":
            model = model.steps[-1][1]
        elif name in _SEARCHES and hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif name in _INNER:
            model = getattr(model, _INNER[name])
        else:
            return model


def gives_several_labels(model: Any) -> bool:  # noqa: ANN401
    """Tell whether a fitted classifier labels each row several times."""
    model = answering(model)
    name = type(model).__name__
    if name in ("ClassifierChain", "MultiOutputClassifier"):
        return True
    if name == "OneVsRestClassifier":
        return bool(getattr(model, "multilabel_", False))
    binarizer = getattr(model, "_label_binarizer", None)
    kind = str(getattr(binarizer, "y_type_", ""))
    return kind.startswith("multilabel") or isinstance(getattr(model, "classes_", None), list)


def target_classes(model: Any) -> list[Array]:  # noqa: ANN401
    """The classes of each target."""
    model = answering(model)
    name = type(model).__name__
    if name == "ClassifierChain":
        places = np.argsort(np.asarray(model.order_))
        return [np.asarray(model.estimators_[place].classes_) for place in places]
    if name == "MultiOutputClassifier":
        return [np.asarray(item.classes_) for item in model.estimators_]
    if isinstance(model.classes_, list):
        return [np.asarray(item) for item in model.classes_]
    return [np.arange(2)] * len(model.classes_)  # is the label there or not


def probability_names(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Contract names of the model's probabilities."""
    name = type(answering(model)).__name__
    if not hasattr(model, "predict_proba") or name == "StackingClassifier":
        return ()
    if name in _CHAINED:
        return ("probabilities",)
    targets = len(target_classes(model))
    if targets > MOST_PROBABILITIES:
        return ()
    return tuple(f"probabilities_{target}" for target in range(targets))


def several_answers(model: Any, rows: Any) -> dict[str, Array]:  # noqa: ANN401
    """What the model answers, by contract name."""
    found = model.predict(rows)
    labels = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    outputs = {"label": as_codes(labels, text=are_text(target_classes(model)))}
    names = probability_names(model)
    if not names:
        return outputs
    proba = model.predict_proba(rows)
    parts = proba if isinstance(proba, list) else [proba]
    values = {n: np.asarray(part, np.float64) for n, part in zip(names, parts, strict=True)}
    return {**outputs, **values}


def are_text(classes: list[Array]) -> bool:
    """Tell whether labels are text: where one target's are, all are."""
    return any(isinstance(label, str) for item in classes for label in item.tolist())


def as_codes(labels: Array, *, text: bool) -> Array:
    """Labels as ONNX gives them: text, or int64 (True is 1, 2.0 is 2)."""
    if text:
        flat = [str(item) for item in labels.ravel().tolist()]
        found = np.empty(len(flat), dtype=np.object_)
        found[:] = flat
        return found.reshape(labels.shape)
    if labels.dtype == np.object_:
        labels = labels.astype(np.float64)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise UnsupportedModelError("class labels must be text or whole numbers, got fractions")
    return labels.astype(np.int64)
