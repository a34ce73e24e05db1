"""Histogram gradient boosting, categories and missing values included."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.leaves import Tree, leaf_values
from edgepack.converter.sklearn_model.converters.linear import two_columns
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array


@dataclass(slots=True)
class _Splits:
    """The categorical splits of all trees: each becomes a column of its own.

    A node asks of that column whether it is above 0.5, which is where categories go right.
    """

    features: int
    tables: dict[int, list[Array]] = field(default_factory=dict)
    places: list[tuple[int, int]] = field(default_factory=list)

    def add(self, feature: int, goes_right: Array) -> int:
        """Remember a split and give the number of its column."""
        column = self.features + len(self.places)
        tables = self.tables.setdefault(feature, [])
        self.places.append((feature, len(tables)))
        tables.append(goes_right)
        return column


def _raw(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Raw predictions, floats (N, K)."""
    encoder, order = _encoder(model)
    splits = _Splits(int(model.n_features_in_))
    trees = [_tree(item, model, encoder, splits) for stage in model._predictors for item in stage]
    x = x.floats()
    seen = x if order is None else x.columns(order)
    if splits.places:
        seen = writer.concat([seen, _membership(writer, seen, encoder, splits)])
    rounds, outputs = len(model._predictors), len(model._predictors[0])
    found = leaf_values(writer, seen, trees).reshape(-1, rounds, outputs).sum()
    return found + writer.const(np.asarray(model._baseline_prediction).reshape(1, -1))


def _encoder(model: Any) -> tuple[list[Array], Array | None]:  # noqa: ANN401
    """The categories of the leading columns, and the order that the model puts columns into."""
    if getattr(model, "_preprocessor", None) is None:
        return [], None
    inner = {name: step for name, step, _ in model._preprocessor.transformers_}
    step = inner["encoder"]
    places = np.flatnonzero(np.asarray(model.is_categorical_))
    others = np.setdiff1d(np.arange(model.n_features_in_), places)
    categories = [np.asarray(item) for item in step.categories_]
    if any(item.dtype.kind not in "fiub" for item in categories):
        raise UnsupportedModelError(
            f"{type(model).__name__} with text categories of its own has no ONNX form here: put an "
            "OrdinalEncoder before it"
        )
    return [item.astype(np.float64) for item in categories], np.concatenate([places, others])


def _tree(item: Any, model: Any, encoder: list[Array], splits: _Splits) -> Tree:  # noqa: ANN401
    nodes = item.nodes
    leaf = nodes["is_leaf"].astype(bool)
    feature = nodes["feature_idx"].astype(np.int64)
    threshold = nodes["num_threshold"].astype(np.float64)
    missing = nodes["missing_go_to_left"].astype(bool)
    for place in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        column = int(feature[place])
        codes = len(encoder[column]) if encoder else 256
        bits = item.raw_left_cat_bitsets[nodes["bitset_idx"][place]]
        left = np.array([bits[code // 32] >> (code % 32) & 1 for code in range(codes)], bool)
        goes_right = np.append(~left, not missing[place])
        feature[place] = splits.add(column, goes_right.astype(np.float64))
        threshold[place] = 0.5
    return Tree(
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        feature=np.where(leaf, 0, feature),
        threshold=threshold,
        missing_left=missing,
        leaf=leaf,
        values=nodes["value"].reshape(-1, 1),
    )


def _membership(writer: Writer, x: Value, encoder: list[Array], splits: _Splits) -> Value:
    parts: list[Value] = []
    order: list[tuple[int, int]] = []
    for feature, tables in splits.tables.items():
        categories = encoder[feature] if encoder else np.arange(256.0)
        known = categories[~np.isnan(categories)]
        is_each = x.columns([feature]).equals(writer.const(known.reshape(1, -1), x.dtype)).floats()
        unknown = 1.0 - is_each.max(keep=True)
        table = np.stack(tables, axis=1)
        table = np.concatenate([table[: len(known)], table[-1:]])
        parts.append(writer.concat([is_each, unknown]) @ writer.const(table))
        order += [(feature, place) for place in range(len(tables))]
    place = {split: index for index, split in enumerate(order)}
    return writer.concat(parts).columns([place[split] for split in splits.places])


@writes("value", "HistGradientBoostingRegressor")
def value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the loss's link."""
    found = _raw(writer, model, x).reshape(-1)
    link = type(model._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise UnsupportedModelError(f"the link {link} has no ONNX form here")
    return found.exp() if link == "LogLink" else found


@writes("decision", "HistGradientBoostingClassifier")
def decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Raw predictions."""
    found = _raw(writer, model, x)
    return found.reshape(-1) if len(model._predictors[0]) == 1 else found


@writes("proba", "HistGradientBoostingClassifier")
def proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Logistic function or softmax of the raw predictions."""
    found = _raw(writer, model, x)
    if len(model._predictors[0]) > 1:
        return found.softmax()
    return two_columns(writer, found.reshape(-1).unary("Sigmoid"))
