"""Gaussian process classifiers: Laplace's approximation, as scikit-learn computes it."""

from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.gaussian_process import kernels as gp

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.kernels import distances, squared_distances
from edgepack.converter.sklearn_model.converters.linear import two_columns
from edgepack.converter.sklearn_model.converters.methods import call, writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array

# Williams and Barber (1998), "Bayesian Classification with Gaussian Processes", appendix A: the
# logistic function as a sum of error functions, with scikit-learn's numbers.
_STEEPNESS = np.array([[0.41, 0.4, 0.37, 0.44, 0.39]])
_SHARES = np.array([[-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654]])


def covariances(writer: Writer, kernel: Any, x: Value, rows: Array) -> Value:  # noqa: ANN401
    """`kernel(x, rows)`, float64 (N, M).

    Raises:
        UnsupportedModelError: The kernel has a part that is not known here.
    """
    if isinstance(kernel, gp.Sum):
        return covariances(writer, kernel.k1, x, rows) + covariances(writer, kernel.k2, x, rows)
    if isinstance(kernel, gp.Product):
        return covariances(writer, kernel.k1, x, rows) * covariances(writer, kernel.k2, x, rows)
    if isinstance(kernel, gp.Exponentiation):
        return covariances(writer, kernel.kernel, x, rows) ** float(kernel.exponent)
    if isinstance(kernel, gp.ConstantKernel):
        return _zeros(writer, x, rows) + float(kernel.constant_value)
    if isinstance(kernel, gp.WhiteKernel):
        return _zeros(writer, x, rows)
    if isinstance(kernel, gp.DotProduct):
        products = x.cast(np.float64) @ writer.const(rows.T, np.float64)
        return products + float(kernel.sigma_0) ** 2
    if isinstance(kernel, gp.RationalQuadratic):
        width = 2.0 * float(kernel.alpha) * float(kernel.length_scale) ** 2
        return (squared_distances(writer, x, rows) / width + 1.0) ** -float(kernel.alpha)
    if isinstance(kernel, gp.Matern):
        return _matern(writer, kernel, x, rows)
    if isinstance(kernel, gp.RBF):
        scale = np.asarray(kernel.length_scale, dtype=np.float64)
        return (squared_distances(writer, _scaled(writer, x, scale), rows / scale) * -0.5).exp()
    raise UnsupportedModelError(f"the kernel {type(kernel).__name__} has no ONNX form here")


def _scaled(writer: Writer, x: Value, scale: Array) -> Value:
    return x.cast(np.float64) / writer.const(scale, np.float64)


def _zeros(writer: Writer, x: Value, rows: Array) -> Value:
    return x.columns([0]).is_nan().cast(np.float64) * writer.const(
        np.zeros((1, len(rows))), np.float64
    )


def _matern(writer: Writer, kernel: Any, x: Value, rows: Array) -> Value:  # noqa: ANN401
    scale = np.asarray(kernel.length_scale, dtype=np.float64)
    far = distances(writer, _scaled(writer, x, scale), rows / scale, "euclidean")
    if kernel.nu == 0.5:
        return (-far).exp()
    if kernel.nu == 1.5:
        way = far * float(np.sqrt(3))
        return (way + 1.0) * (-way).exp()
    if kernel.nu == 2.5:
        way = far * float(np.sqrt(5))
        return (way + 1.0 + way * way / 3.0) * (-way).exp()
    if np.isinf(kernel.nu):
        return (far * far * -0.5).exp()
    raise UnsupportedModelError(f"the kernel Matern(nu={kernel.nu}) has no ONNX form here")


def _binary_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    covariance = covariances(writer, model.kernel_, x, np.asarray(model.X_train_, np.float64))
    weights = np.asarray(model.y_train_ - model.pi_, dtype=np.float64)
    return (covariance @ writer.const(weights.reshape(-1, 1), np.float64)).reshape(-1)


def _binary_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Of the second class, float64 (N,)."""
    rows = np.asarray(model.X_train_, dtype=np.float64)
    covariance = covariances(writer, model.kernel_, x, rows)
    weights = np.asarray(model.y_train_ - model.pi_, dtype=np.float64)
    mean = covariance @ writer.const(weights.reshape(-1, 1), np.float64)
    inner = solve_triangular(model.L_, np.diag(np.ravel(model.W_sr_)), lower=True)
    turned = covariance @ writer.const(inner.T, np.float64)
    variance = _own(writer, model.kernel_, x) - (turned * turned).sum(keep=True)
    alpha = 0.5 / variance
    steep = writer.const(_STEEPNESS, np.float64)
    inside = mean * steep * (alpha / (alpha + steep * steep)).sqrt()
    # sqrt(pi / alpha) / (2 sqrt(2 pi variance)) is 1/2: alpha is 1 / (2 variance).
    integrals = error_function(writer, inside) * 0.5
    found = (integrals * writer.const(_SHARES, np.float64)).sum()
    return found + float(0.5 * _SHARES.sum())


def _own(writer: Writer, kernel: Any, x: Value) -> Value:  # noqa: ANN401
    """`kernel.diag(x)`, float64 (N, 1)."""
    if isinstance(kernel, gp.Sum):
        return _own(writer, kernel.k1, x) + _own(writer, kernel.k2, x)
    if isinstance(kernel, gp.Product):
        return _own(writer, kernel.k1, x) * _own(writer, kernel.k2, x)
    if isinstance(kernel, gp.Exponentiation):
        return _own(writer, kernel.kernel, x) ** float(kernel.exponent)
    if isinstance(kernel, gp.DotProduct):
        wide = x.cast(np.float64)
        return (wide * wide).sum(keep=True) + float(kernel.sigma_0) ** 2
    value = float(kernel.diag(np.zeros((1, 1)))[0])
    return x.columns([0]).is_nan().cast(np.float64) * 0.0 + value


def error_function(writer: Writer, x: Value) -> Value:
    """Erf in float64, which onnxruntime has for float32 only.

    The shares that Gaussian processes weigh it with are large and cancel, so that float32 loses
    all digits. Maclaurin's series up to 3, where it has float64's digits but for four, and beyond
    it Laplace's continued fraction (Abramowitz and Stegun 1964, 7.1.5 and 7.1.14).
    """
    size = x.unary("Abs")
    near = size.at_most(3.0)
    square = near * near
    # erf(x) = 2/sqrt(pi) e**-x² x Σ (2x²)^n / (1·3·…·(2n+1)): all terms positive.
    series = square * 0.0 + 1.0
    for n in range(60, 0, -1):
        series = series * (square * (2.0 / (2 * n + 1))) + 1.0
    inner = series * near * (-square).exp() * float(2 / np.sqrt(np.pi))
    far = size.at_least(3.0)
    fraction = far
    for n in range(40, 0, -1):
        fraction = far + (1.0 / fraction) * (n / 2)
    outer = 1.0 - (-(far * far)).exp() / fraction * float(1 / np.sqrt(np.pi))
    return x.unary("Sign") * writer.where(size <= 3.0, inner, outer)


@writes("index", "GaussianProcessClassifier")
def index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The sign of the latent mean; of more classes what they are made of decides."""
    inner = model.base_estimator_
    if model.n_classes_ > 2:
        return call(writer, inner, "index", x)
    return (_binary_index(writer, inner, x) > 0.0).cast(np.int64)


@writes("proba", "GaussianProcessClassifier")
def proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the latent mean and variance."""
    inner = model.base_estimator_
    if model.n_classes_ > 2:
        return call(writer, inner, "proba", x)
    return two_columns(writer, _binary_proba(writer, inner, x)).floats()


@writes("proba", "_BinaryGaussianProcessClassifierLaplace")
def binary_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """One of several."""
    return two_columns(writer, _binary_proba(writer, model, x)).floats()


@writes("index", "_BinaryGaussianProcessClassifierLaplace")
def binary_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """One of several."""
    return (_binary_index(writer, model, x) > 0.0).cast(np.int64)


@writes("value", "GaussianProcessRegressor")
def mean_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean, in float64 inside: weights of a smooth kernel are large and cancel."""
    if not hasattr(model, "X_train_"):
        raise UnsupportedModelError("GaussianProcessRegressor is not fitted")
    covariance = covariances(writer, model.kernel_, x, np.asarray(model.X_train_, np.float64))
    weights = np.asarray(model.alpha_, dtype=np.float64)
    found = covariance @ writer.const(weights.reshape(len(weights), -1), np.float64)
    found = found * writer.const(np.ravel(model._y_train_std), np.float64)
    found = found + writer.const(np.ravel(model._y_train_mean), np.float64)
    return (found.reshape(-1) if np.ndim(model._y_train_mean) == 0 else found).floats()
