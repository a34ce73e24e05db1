"""Classifiers made of two-class models: one for each pair, class, or bit of a code."""

from itertools import combinations
from typing import Any

import numpy as np
from sklearn import base

from edgepack.converter.sklearn_model.converters.kernels import squared_distances
from edgepack.converter.sklearn_model.converters.methods import call, offers, writes
from edgepack.converter.sklearn_model.converters.support_vectors import votes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


def binary_score(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """What speaks for the second class, floats (N,): a decision, or its probability."""
    if base.is_regressor(model):
        return call(writer, model, "value", x).reshape(-1)
    if offers(model, "decision"):
        return call(writer, model, "decision", x).reshape(-1)
    return call(writer, model, "proba", x).column(1)


def score_threshold(model: Any) -> float:  # noqa: ANN401
    """From which `binary_score` on the second class is meant."""
    if base.is_regressor(model):
        return 0.5
    return 0.0 if offers(model, "decision") else 0.5


@writes("decision", "OneVsRestClassifier")
def rest_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Each class's decision."""
    found = [call(writer, item, "decision", x).reshape(-1, 1) for item in model.estimators_]
    return found[0].reshape(-1) if len(found) == 1 else writer.concat(found)


@writes("proba", "OneVsRestClassifier")
def rest_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Each class's probability, normalised."""
    found = [call(writer, item, "proba", x).columns([1]) for item in model.estimators_]
    if len(found) == 1:
        return writer.concat([1.0 - found[0], found[0]])
    each = writer.concat(found)
    sums = each.sum(keep=True)
    return each / writer.where(sums.equals(0.0), writer.const(np.array(1.0)), sums)


@writes("index", "OneVsRestClassifier")
def rest_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The class of which its model is surest."""
    scores = [binary_score(writer, item, x).reshape(-1, 1) for item in model.estimators_]
    if len(scores) == 1:
        return (scores[0].reshape(-1) > score_threshold(model.estimators_[0])).cast(np.int64)
    return writer.concat(scores).argmax()


@writes("decision", "OneVsOneClassifier")
def pair_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Votes of all pairs, and how sure they are."""
    classes = len(model.classes_)
    wins, scores = [], []
    for place, item in enumerate(model.estimators_):
        seen = x if model.pairwise_indices_ is None else x.columns(model.pairwise_indices_[place])
        wins.append(call(writer, item, "index", seen).reshape(-1, 1))
        scores.append(binary_score(writer, item, seen).cast(np.float64).reshape(-1, 1))
    assert len(wins) == len(list(combinations(range(classes), 2)))
    found = votes(writer, writer.concat(wins).equals(1), writer.concat(scores), classes)
    return (found.column(1) if classes == 2 else found).floats()


@writes("index", "OneVsOneClassifier")
def pair_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The class with most votes."""
    found = pair_decision(writer, model, x)
    if len(model.classes_) > 2:
        return found.argmax()
    return (found > score_threshold(model.estimators_[0])).cast(np.int64)


@writes("index", "OutputCodeClassifier")
def code_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The class with the nearest code."""
    scores = [binary_score(writer, item, x).reshape(-1, 1) for item in model.estimators_]
    return squared_distances(writer, writer.concat(scores), model.code_book_).argmin()
