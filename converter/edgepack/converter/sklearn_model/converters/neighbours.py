"""Models that look up the nearest training rows."""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.kernels import distances, kernel
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array


def all_distances(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """To every training row by the model's metric, float64 (N, M)."""
    metric = model.effective_metric_
    if metric == "precomputed":
        return x.cast(np.float64)
    if not isinstance(metric, str):
        raise UnsupportedModelError(f"the metric {metric!r} has no ONNX form here")
    if not isinstance(model._fit_X, np.ndarray):
        raise UnsupportedModelError(f"{type(model).__name__} was fitted on a sparse matrix")
    power = float((model.effective_metric_params_ or {}).get("p", 2.0))
    return distances(writer, x, model._fit_X, metric, power)


def nearest(writer: Writer, model: Any, x: Value, count: int) -> tuple[Value, Value]:  # noqa: ANN401
    """Distances, float64 (N, k), and numbers, int64 (N, k), of the nearest training rows."""
    found = all_distances(writer, model, x)
    near, places = writer.ops(
        "TopK",
        found,
        writer.const(np.array([count])),
        dtypes=(found.dtype, np.int64),
        axis=1,
        largest=0,
        sorted=1,
    )
    return near, places


def weights_of(writer: Writer, model: Any, near: Value) -> Value:  # noqa: ANN401
    """Of neighbours at these distances, float64 (N, k)."""
    if model.weights == "uniform":
        return near * 0.0 + 1.0
    if model.weights != "distance":
        raise UnsupportedModelError(
            f"{type(model).__name__}(weights=a function) has no ONNX form: a function is no data"
        )
    exact = near.equals(0.0)
    any_exact = exact.cast(np.int64).max(keep=True).equals(1)
    inverse = 1.0 / writer.where(exact, writer.const(np.array(1.0), np.float64), near)
    return writer.where(any_exact, exact.cast(np.float64), inverse)


@writes("proba", "KNeighborsClassifier")
def neighbour_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The neighbours' shares of each class."""
    near, places = nearest(writer, model, x, int(model.n_neighbors))
    weights = weights_of(writer, model, near)
    known = np.asarray(model._y, dtype=np.int64)
    return shares_of(writer, known, len(model.classes_), places, weights)


def shares_of(writer: Writer, known: Array, classes: int, places: Value, weights: Value) -> Value:
    """The neighbours' shares of each class, floats (N, C).

    Args:
        writer: Of the graph.
        known: Classes of the training rows, int64 (M,).
        classes: How many there are.
        places: Numbers of the neighbours, int64 (N, k).
        weights: Theirs, float64 (N, k).
    """
    members = np.eye(classes)[known]
    counts = (writer.const(members, np.float64).take(places) * weights.unsqueeze(2)).sum()
    return (counts / counts.sum(keep=True)).floats()


@writes("value", "KNeighborsRegressor")
def neighbour_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The neighbours' mean."""
    near, places = nearest(writer, model, x, int(model.n_neighbors))
    targets = np.asarray(model._y, dtype=np.float64)
    known = writer.const(targets.reshape(len(targets), -1), np.float64).take(places)
    weights = weights_of(writer, model, near)
    found = (known * weights.unsqueeze(2)).sum() / weights.sum(keep=True)
    return (found.reshape(-1) if targets.ndim == 1 else found).floats()


def within(writer: Writer, model: Any, x: Value) -> tuple[Value, Value]:  # noqa: ANN401
    """Weights of all training rows, 0 outside the radius, float64 (N, M); their sums (N, 1)."""
    far = all_distances(writer, model, x)
    inside = far <= float(model.radius)
    if model.weights == "uniform":
        weights = inside.cast(np.float64)
    else:
        weights = weights_of(writer, model, far) * inside.cast(np.float64)
    return weights, weights.sum(keep=True)


@writes("value", "RadiusNeighborsRegressor")
def radius_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean within the radius; NaN where nothing is."""
    weights, sums = within(writer, model, x)
    targets = np.asarray(model._y, dtype=np.float64)
    known = writer.const(targets.reshape(len(targets), -1), np.float64)
    found = (weights @ known) / sums  # 0/0 is NaN
    return (found.reshape(-1) if targets.ndim == 1 else found).floats()


@writes("proba", "RadiusNeighborsClassifier")
def radius_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The shares of each class within the radius; the outlier label where nothing is."""
    label = None if model.outlier_label_ is None else np.ravel(np.asarray(model.outlier_label_))[0]
    found = within(writer, model, x)
    known = np.asarray(model._y, dtype=np.int64)
    return shares_within(writer, found, known, np.asarray(model.classes_), label)


def shares_within(
    writer: Writer,
    found: tuple[Value, Value],
    known: Array,
    classes: Array,
    outlier_label: Any,  # noqa: ANN401  (any class)
) -> Value:
    """The shares of each class within the radius, floats (N, C).

    Args:
        writer: Of the graph.
        found: What `within` gave.
        known: Classes of the training rows, int64 (M,).
        classes: Their names.
        outlier_label: The class of rows with nothing near.

    Raises:
        UnsupportedModelError: That is none of the classes.
    """
    if outlier_label is None:
        raise UnsupportedModelError(
            "RadiusNeighborsClassifier without outlier_label refuses rows that have no "
            "neighbours, which a device cannot: set outlier_label"
        )
    where = np.flatnonzero(classes == outlier_label)
    if len(where) != 1:
        raise UnsupportedModelError(
            "RadiusNeighborsClassifier's outlier_label must be one of its classes, got "
            f"{outlier_label!r}"
        )
    weights, sums = found
    members = np.eye(len(classes))[known]
    counts = weights @ writer.const(members, np.float64)
    nothing = sums.equals(0.0)
    row = writer.const(np.eye(len(classes))[where], np.float64)
    one = writer.const(np.array(1.0), np.float64)
    return writer.where(nothing, row, counts / writer.where(nothing, one, sums)).floats()


@writes("transform", "KNeighborsTransformer")
def neighbour_graph(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The distances to the nearest training rows in their columns, else 0."""
    distance_mode = model.mode == "distance"
    count = int(model.n_neighbors) + int(distance_mode)
    near, places = nearest(writer, model, x, count)
    numbers = writer.const(np.arange(model.n_samples_fit_).reshape(1, 1, -1))
    is_each = places.unsqueeze(2).equals(numbers).cast(np.float64)
    found = (is_each * near.unsqueeze(2)) if distance_mode else is_each
    return found.sum().floats()


@writes("transform", "RadiusNeighborsTransformer")
def radius_graph(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The distances to the training rows within the radius, else 0."""
    far = all_distances(writer, model, x)
    inside = (far <= float(model.radius)).cast(np.float64)
    return (inside * far if model.mode == "distance" else inside).floats()


@writes("index", "NearestCentroid")
def centroid_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The nearest centroid, or the largest discriminant where classes are not equally likely."""
    priors = np.asarray(model.class_prior_)
    if np.isclose(priors, 1 / len(priors)).all():
        return distances(writer, x, model.centroids_, model.metric).argmin()
    return _discriminants(writer, model, x).argmax()


def _discriminants(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Discriminant scores, float64 (N, C)."""
    spread = np.asarray(model.within_class_std_dev_, dtype=np.float64)
    scale = np.where(spread != 0, spread, 1.0)
    scaled = x.cast(np.float64) / writer.const(scale, np.float64)
    far = distances(writer, scaled, model.centroids_ / scale, model.metric)
    return -(far * far) + 2.0 * np.log(np.asarray(model.class_prior_, dtype=np.float64))


@writes("decision", "NearestCentroid")
def centroid_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Discriminant scores; of two classes their difference."""
    found = _discriminants(writer, model, x)
    if len(model.classes_) == 2:
        return (found.column(1) - found.column(0)).floats()
    return found.floats()


@writes("proba", "NearestCentroid")
def centroid_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Softmax of the discriminant scores."""
    return _discriminants(writer, model, x).softmax().floats()


@writes("proba", "LabelPropagation", "LabelSpreading")
def propagated_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The labels of the training rows, weighted by their nearness."""
    labels = writer.const(np.asarray(model.label_distributions_), np.float64)
    if model.kernel == "knn":
        _, places = nearest(writer, model.nn_fit, x, int(model.n_neighbors))
        counts = labels.take(places).sum()
    elif model.kernel == "rbf":
        counts = kernel(writer, x, model.X_, "rbf", gamma=model.gamma) @ labels
    else:
        raise UnsupportedModelError(f"{type(model).__name__}(kernel=a function) has no ONNX form")
    return (counts / counts.sum(keep=True)).floats()


@writes("transform", "Isomap")
def isomap(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Shortest ways by the nearest training rows, as kernels, projected."""
    from edgepack.converter.sklearn_model.converters.kernels import centred_kernels

    if model.n_neighbors is None:
        raise UnsupportedModelError("Isomap(radius=…) has no ONNX form here: use n_neighbors")
    near, places = nearest(writer, model.nbrs_, x, int(model.nbrs_.n_neighbors))
    ways = writer.const(np.asarray(model.dist_matrix_), np.float64).take(places)
    shortest = (ways + near.unsqueeze(2)).min()
    inner = model.kernel_pca_
    kernels = centred_kernels(writer, inner._centerer, shortest * shortest * -0.5)
    nonzero = np.flatnonzero(inner.eigenvalues_)
    axes = np.zeros_like(inner.eigenvectors_)
    axes[:, nonzero] = inner.eigenvectors_[:, nonzero] / np.sqrt(inner.eigenvalues_[nonzero])
    return (kernels @ writer.const(axes, np.float64)).floats()


@writes("transform", "LocallyLinearEmbedding")
def locally_linear(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The embedding of the neighbours that best rebuild the row, weighted so."""
    count = int(model.n_neighbors)
    _, places = nearest(writer, model.nbrs_, x, count)
    known = writer.const(np.asarray(model.nbrs_._fit_X), np.float64).take(places)
    gaps = known - x.cast(np.float64).unsqueeze(1)
    gram = gaps @ gaps.transpose(0, 2, 1)
    unit = writer.const(np.eye(count), np.float64)
    trace = (gram * unit).sum(2).sum().reshape(-1, 1, 1)
    one = writer.const(np.array(1.0), np.float64)
    gram = gram + unit * (writer.where(trace > 0.0, trace, one) * float(model.reg))
    weights = _solved(writer, gram, count)
    weights = weights / weights.sum(keep=True)
    embedded = writer.const(np.asarray(model.embedding_), np.float64).take(places)
    return (embedded * weights.unsqueeze(2)).sum().floats()


def _solved(writer: Writer, gram: Value, count: int) -> Value:
    """W of `gram @ w = 1`, float64 (N, k): Gauss-Jordan, which positive matrices let be simple."""
    ones = writer.const(np.ones((1, count, 1)), np.float64)
    table = writer.concat([gram, gram.columns([0]).transpose(0, 2, 1) * 0.0 + ones], axis=2)
    for step in range(count):
        row = table.columns([step])
        row = row / row.take(np.array([step]), axis=2)
        column = table.take(np.array([step]), axis=2)
        others = np.ones((1, count, 1))
        others[0, step] = 0.0
        pivot = 1.0 - others
        table = table * others - column * others * row + row * pivot
    return table.take(np.array(count), axis=2)
