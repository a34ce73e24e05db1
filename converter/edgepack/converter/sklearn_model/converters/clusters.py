"""Clusterers that label new rows by the nearest of something."""

from typing import Any

import numpy as np

from edgepack.converter.sklearn_model.converters.kernels import squared_distances
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


@writes("label", "AffinityPropagation", "KMeans", "MeanShift", "MiniBatchKMeans")
def nearest_centre(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The nearest centre's number."""
    centres = np.asarray(model.cluster_centers_)
    if not len(centres):  # affinity propagation that did not converge
        return (x.column(0) * 0.0).cast(np.int64) - 1
    return squared_distances(writer, x, centres).argmin()


@writes("transform", "BisectingKMeans", "KMeans", "MiniBatchKMeans")
def centre_distances(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Distances to the centres."""
    return squared_distances(writer, x, model.cluster_centers_).sqrt().floats()


@writes("label", "Birch")
def birch_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The cluster of the nearest subcluster."""
    nearest = squared_distances(writer, x, model.subcluster_centers_).argmin()
    return writer.const(np.asarray(model.subcluster_labels_, dtype=np.int64)).take(nearest)


@writes("transform", "Birch")
def birch_distances(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Distances to the subclusters."""
    return squared_distances(writer, x, model.subcluster_centers_).sqrt().floats()


@writes("label", "BisectingKMeans")
def bisecting_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Down the tree of bisections, to the nearer of two centres each time."""
    mean = getattr(model, "_X_mean", 0.0)

    def label(node: Any) -> Value:  # noqa: ANN401
        if node.left is None:
            return writer.const(np.array([node.label]), np.int64)
        centres = np.vstack([node.left.center, node.right.center]) + mean
        gaps = squared_distances(writer, x, centres)
        goes_left = gaps.column(0) <= gaps.column(1)
        return writer.where(goes_left, label(node.left), label(node.right))

    found = label(model._bisecting_tree)
    return found + (x.column(0) * 0.0).cast(np.int64)


@writes("transform", "FeatureAgglomeration")
def agglomerated(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean (or other pooling) of each cluster of columns."""
    from edgepack.converter.errors import UnsupportedModelError

    labels = np.asarray(model.labels_)
    pool = getattr(model.pooling_func, "__name__", "")
    parts = []
    for number in range(int(labels.max()) + 1):
        columns = x.columns(np.flatnonzero(labels == number))
        if pool not in ("mean", "max", "amax", "min", "amin", "sum"):
            raise UnsupportedModelError(f"the pooling function {pool!r} has no ONNX form here")
        name = {"amax": "max", "amin": "min"}.get(pool, pool)
        parts.append(getattr(columns, name)(1, keep=True))
    return writer.concat(parts)
