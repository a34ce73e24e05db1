"""Distances and kernels between rows, and the models that are a sum of kernels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array


def squared_distances(writer: Writer, x: Value, others: Any) -> Value:  # noqa: ANN401
    """Squared Euclidean distances (N, M), in float64 always.

    |x|² - 2 x·y + |y|² cancels in float32; round the mean of the others it hardly does in float64.
    """
    rows = np.asarray(others, dtype=np.float64)
    centre = rows.mean(axis=0)
    rows = rows - centre
    wide = x.cast(np.float64) - writer.const(centre, np.float64)
    products = wide @ writer.const(rows.T, np.float64)
    norms = writer.const((rows**2).sum(axis=1), np.float64)
    return ((wide * wide).sum(keep=True) - 2.0 * products + norms).at_least(0.0)


def differences(writer: Writer, x: Value, others: Any) -> Value:  # noqa: ANN401
    """X - y of all pairs, float64 (N, M, D)."""
    wide = x.cast(np.float64).unsqueeze(1)
    return wide - writer.const(np.asarray(others)[np.newaxis], np.float64)


def distances(writer: Writer, x: Value, others: Any, metric: str, power: float = 2.0) -> Value:  # noqa: ANN401
    """Distances (N, M), float64, by scikit-learn's name of the metric.

    Raises:
        UnsupportedModelError: The metric is another one.
    """
    name = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan"}.get(metric, metric)
    if name == "minkowski":
        name = {1: "manhattan", 2: "euclidean"}.get(power, name)  # type: ignore[call-overload]
    if name == "euclidean":
        return squared_distances(writer, x, others).sqrt()
    if name == "sqeuclidean":
        return squared_distances(writer, x, others)
    if name == "cosine":
        return 1.0 - _cosine(writer, x, others)
    gaps = differences(writer, x, others).unary("Abs")
    if name == "manhattan":
        return gaps.sum(2)
    if name in ("chebyshev", "infinity"):
        return gaps.max(2)
    if name == "minkowski":
        return (gaps**power).sum(2) ** (1.0 / power)
    raise UnsupportedModelError(f"the metric {metric!r} has no ONNX form here")


def kernel(writer: Writer, x: Value, others: Any, name: Any, **terms: Any) -> Value:  # noqa: ANN401
    """Kernels (N, M), float64, by scikit-learn's name.

    Args:
        writer: Of the graph.
        x: Floats (N, D).
        others: (M, D).
        name: "rbf", "poly", …
        terms: gamma (None is 1/D), degree, coef0, where the kernel has them.

    Raises:
        UnsupportedModelError: The kernel is another one, or a function.
    """
    write = _KERNELS.get(name) if isinstance(name, str) else None
    if write is None:
        shown = name if isinstance(name, str) else getattr(name, "__name__", "a function")
        raise UnsupportedModelError(f"the kernel {shown!r} has no ONNX form here")
    rows = np.asarray(others, dtype=np.float64)
    return write(writer, x, rows, **_terms(terms, rows, name))


def _terms(terms: dict[str, Any], rows: Array, name: str) -> dict[str, Any]:
    gamma = terms.get("gamma")
    default = 1.0 if name == "chi2" else 1.0 / rows.shape[1]
    filled = {
        "gamma": default if gamma is None else float(gamma),
        "degree": 3.0 if terms.get("degree") is None else float(terms["degree"]),
        "coef0": 1.0 if terms.get("coef0") is None else float(terms["coef0"]),
    }
    return {key: filled[key] for key in _TAKES.get(name, ())}


def _linear(writer: Writer, x: Value, rows: Array) -> Value:
    return x.cast(np.float64) @ writer.const(rows.T, np.float64)


def _poly(
    writer: Writer, x: Value, rows: Array, *, gamma: float, degree: float, coef0: float
) -> Value:
    return (gamma * _linear(writer, x, rows) + coef0) ** degree


def _sigmoid(writer: Writer, x: Value, rows: Array, *, gamma: float, coef0: float) -> Value:
    return (gamma * _linear(writer, x, rows) + coef0).unary("Tanh")


def _rbf(writer: Writer, x: Value, rows: Array, *, gamma: float) -> Value:
    return (squared_distances(writer, x, rows) * -gamma).exp()


def _laplacian(writer: Writer, x: Value, rows: Array, *, gamma: float) -> Value:
    return (differences(writer, x, rows).unary("Abs").sum(2) * -gamma).exp()


def _cosine(writer: Writer, x: Value, others: Any) -> Value:  # noqa: ANN401
    rows = np.asarray(others, dtype=np.float64)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    wide = x.cast(np.float64)
    length = (wide * wide).sum(keep=True).sqrt()
    unit = wide / writer.where(length.equals(0.0), writer.const(np.array(1.0), np.float64), length)
    return unit @ writer.const((rows / np.where(norms == 0, 1, norms)).T, np.float64)


def _additive_chi2(writer: Writer, x: Value, rows: Array) -> Value:
    gaps = differences(writer, x, rows)
    both = x.cast(np.float64).unsqueeze(1) + writer.const(rows[np.newaxis], np.float64)
    one = writer.const(np.array(1.0), np.float64)
    return -(gaps * gaps / writer.where(both.equals(0.0), one, both)).sum(2)


def _chi2(writer: Writer, x: Value, rows: Array, *, gamma: float) -> Value:
    return (_additive_chi2(writer, x, rows) * gamma).exp()


_KERNELS: dict[str, Callable[..., Value]] = {
    "linear": _linear,
    "poly": _poly,
    "polynomial": _poly,
    "sigmoid": _sigmoid,
    "rbf": _rbf,
    "laplacian": _laplacian,
    "cosine": _cosine,
    "additive_chi2": _additive_chi2,
    "chi2": _chi2,
}
_TAKES = {
    "poly": ("gamma", "degree", "coef0"),
    "polynomial": ("gamma", "degree", "coef0"),
    "sigmoid": ("gamma", "coef0"),
    "rbf": ("gamma",),
    "laplacian": ("gamma",),
    "chi2": ("gamma",),
}


@writes("value", "KernelRidge")
def kernel_ridge(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The kernels with the training rows, weighted."""
    if model.kernel == "precomputed":
        kernels = x.cast(np.float64)
    else:
        kernels = kernel(
            writer,
            x,
            model.X_fit_,
            model.kernel,
            gamma=model.gamma,
            degree=model.degree,
            coef0=model.coef0,
        )
    weights = np.asarray(model.dual_coef_, dtype=np.float64)
    found = (kernels @ writer.const(weights.reshape(len(weights), -1), np.float64)).floats()
    return found.reshape(-1) if weights.ndim == 1 else found


@writes("transform", "Nystroem")
def nystroem(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The kernels with the chosen rows, normalised."""
    kernels = kernel(writer, x, model.components_, model.kernel, **model._get_kernel_params())
    return (kernels @ writer.const(model.normalization_.T, np.float64)).floats()


@writes("transform", "KernelPCA")
def kernel_pca(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Centred kernels with the training rows, projected."""
    if model.kernel == "precomputed":
        kernels = x.cast(np.float64)
    else:
        kernels = kernel(
            writer,
            x,
            model.X_fit_,
            model.kernel,
            gamma=model.gamma_,
            degree=model.degree,
            coef0=model.coef0,
        )
    found = centred_kernels(writer, model._centerer, kernels)
    nonzero = np.flatnonzero(model.eigenvalues_)
    axes = np.zeros_like(model.eigenvectors_)
    axes[:, nonzero] = model.eigenvectors_[:, nonzero] / np.sqrt(model.eigenvalues_[nonzero])
    return (found @ writer.const(axes, np.float64)).floats()


@writes("transform", "KernelCenterer")
def kernel_centerer(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Kernels as if the rows had been centred in the kernel's space."""
    return centred_kernels(writer, model, x.cast(np.float64)).floats()


def centred_kernels(writer: Writer, centerer: Any, kernels: Value) -> Value:  # noqa: ANN401
    """What KernelCenterer does, in float64."""
    rows = np.asarray(centerer.K_fit_rows_, dtype=np.float64)
    means = kernels.sum(keep=True) / float(len(rows))
    return kernels - writer.const(rows, np.float64) - means + float(centerer.K_fit_all_)
