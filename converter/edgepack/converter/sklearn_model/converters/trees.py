"""Decision trees, forests and gradient boosting of scikit-learn's own trees."""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.leaves import leaf_values, of_sklearn
from edgepack.converter.sklearn_model.converters.linear import signs, two_columns
from edgepack.converter.sklearn_model.converters.methods import call, writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array

_ONE = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_MANY = ("ExtraTreesClassifier", "RandomForestClassifier")
_ONE_VALUE = ("DecisionTreeRegressor", "ExtraTreeRegressor")
_MANY_VALUES = ("ExtraTreesRegressor", "RandomForestRegressor")


def _seen(x: Value) -> Value:
    return x.cast(np.float32)  # scikit-learn's trees compare so


def _shares(tree: Any) -> Array:  # noqa: ANN401
    counts: Array = tree.value[:, 0, :]
    sums = counts.sum(axis=1, keepdims=True)
    return counts / np.where(sums == 0, 1, sums) if (sums > 1.5).any() else counts


@writes("proba", *_ONE)
def tree_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The leaf's share of each class."""
    tree = of_sklearn(model.tree_, _shares(model.tree_))
    return leaf_values(writer, _seen(x), [tree]).reshape(-1, len(model.classes_))


@writes("proba", *_MANY)
def forest_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the trees' shares."""
    trees = [of_sklearn(item.tree_, _shares(item.tree_)) for item in model.estimators_]
    return leaf_values(writer, _seen(x), trees).sum() / float(len(trees))


@writes("value", *_ONE_VALUE)
def tree_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The leaf's value."""
    tree = of_sklearn(model.tree_, model.tree_.value[:, :, 0])
    found = leaf_values(writer, _seen(x), [tree])
    return found.reshape(-1) if model.n_outputs_ == 1 else found.reshape(-1, model.n_outputs_)


@writes("value", *_MANY_VALUES)
def forest_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the trees."""
    trees = [of_sklearn(item.tree_, item.tree_.value[:, :, 0]) for item in model.estimators_]
    found = leaf_values(writer, _seen(x), trees).sum() / float(len(trees))
    return found.reshape(-1) if model.n_outputs_ == 1 else found


def _boosted(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Raw predictions, floats (N, K)."""
    rounds, outputs = model.estimators_.shape
    rate = float(model.learning_rate)
    trees = [
        of_sklearn(item.tree_, rate * item.tree_.value[:, :, 0])
        for item in model.estimators_.ravel()
    ]
    seen = _seen(x)
    found = leaf_values(writer, seen, trees).reshape(-1, rounds, outputs).sum()
    return found + _start(writer, model, seen.floats())


def _start(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    if isinstance(model.init_, str) or type(model.init_).__name__.startswith("Dummy"):
        row = np.zeros((1, model.n_features_in_), dtype=np.float32)
        return writer.const(np.asarray(model._raw_predict_init(row), dtype=np.float64))
    if hasattr(model, "classes_"):
        raise UnsupportedModelError(
            f"{type(model).__name__}(init={type(model.init_).__name__}) has no ONNX form here"
        )
    return call(writer, model.init_, "value", x).reshape(-1, 1)


@writes("value", "GradientBoostingRegressor")
def boosted_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The sum of all stages."""
    return _boosted(writer, model, x).reshape(-1)


@writes("decision", "GradientBoostingClassifier")
def boosted_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The sums of all stages."""
    found = _boosted(writer, model, x)
    return found.reshape(-1) if model.estimators_.shape[1] == 1 else found


@writes("proba", "GradientBoostingClassifier")
def boosted_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the loss's link."""
    found = _boosted(writer, model, x)
    if model.estimators_.shape[1] > 1:
        return found.softmax()
    scale = 2.0 if model.loss == "exponential" else 1.0
    return two_columns(writer, (found.reshape(-1) * scale).unary("Sigmoid"))


@writes("index", "GradientBoostingClassifier")
def boosted_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The second class from zero on."""
    found = _boosted(writer, model, x)
    if model.estimators_.shape[1] > 1:
        return found.argmax()
    return (found.reshape(-1) >= 0.0).cast(np.int64)


@writes("decision", "IsolationForest")
def isolation_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """How deep a row falls on average, against what is usual."""
    from sklearn.ensemble._iforest import _average_path_length

    trees = []
    seen = _seen(x)
    for item, columns, lengths, usual in zip(
        model.estimators_,
        model.estimators_features_,
        model._decision_path_lengths,
        model._average_path_length_per_tree,
        strict=True,
    ):
        tree = of_sklearn(item.tree_, lengths + usual - 1.0)
        trees.append(_renumbered(tree, columns))
    depths = leaf_values(writer, seen, trees).sum().reshape(-1)
    usual_depth = len(trees) * float(_average_path_length([model._max_samples])[0])
    scores = writer.op("Pow", writer.const(np.array(2.0)), depths / -(usual_depth or 1.0))
    return -scores - float(model.offset_)


def _renumbered(tree: Any, columns: Any) -> Any:  # noqa: ANN401
    from dataclasses import replace

    return replace(tree, feature=np.asarray(columns)[tree.feature])


@writes("label", "IsolationForest")
def isolation_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Outside where the decision is negative."""
    return signs(isolation_decision(writer, model, x))


@writes("transform", "RandomTreesEmbedding")
def embedding(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Which leaf of each tree, one column a leaf."""
    leaves = [np.flatnonzero(item.tree_.children_left < 0) for item in model.estimators_]
    parts = []
    for item, found, categories in zip(
        model.estimators_, leaves, model.one_hot_encoder_.categories_, strict=True
    ):
        rows = np.zeros((item.tree_.node_count, len(categories)))
        for column, leaf in enumerate(categories):
            rows[int(leaf), column] = 1.0
        assert set(categories.astype(int)) <= set(found.tolist())
        parts.append(
            leaf_values(writer, _seen(x), [of_sklearn(item.tree_, rows)]).reshape(
                -1, len(categories)
            )
        )
    return writer.concat(parts)
