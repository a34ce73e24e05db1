"""Factor models, dictionaries and mixtures."""

from typing import Any

import numpy as np
from scipy.special import digamma

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


@writes("transform", "FactorAnalysis")
def factors(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The factors' expected values."""
    weighted = model.components_ / model.noise_variance_
    inner = np.linalg.inv(np.eye(len(model.components_)) + weighted @ model.components_.T)
    centred = x.cast(np.float64) - writer.const(model.mean_, np.float64)
    return (centred @ writer.const(weighted.T @ inner, np.float64)).floats()


@writes("transform", "FastICA")
def components(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The sources."""
    wide = x.cast(np.float64)
    if model.whiten:
        wide = wide - writer.const(model.mean_, np.float64)
    return (wide @ writer.const(model.components_.T, np.float64)).floats()


@writes("transform", "SparsePCA", "MiniBatchSparsePCA")
def sparse_components(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """A ridge regression on the components, which is one product."""
    axes = np.asarray(model.components_, dtype=np.float64)
    inner = axes @ axes.T + model.ridge_alpha * np.eye(len(axes))
    centred = x.cast(np.float64) - writer.const(model.mean_, np.float64)
    return (centred @ writer.const(np.linalg.solve(inner, axes).T, np.float64)).floats()


@writes("transform", "BernoulliRBM")
def hidden_units(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """How likely each hidden unit is on."""
    found = x @ writer.const(np.asarray(model.components_).T) + writer.const(
        np.asarray(model.intercept_hidden_)
    )
    return found.unary("Sigmoid")


_FACTORS = "iterates until the factors of all rows together settle: a row's depend on the others"
_ITERATIVE = {
    "LatentDirichletAllocation": (
        "iterates with the digamma function until the topics of each row settle: "
        "ONNX has no such function"
    ),
    "MiniBatchNMF": _FACTORS,
    "NMF": _FACTORS,
}


@writes("transform", *_ITERATIVE)
def iterated(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Refused.

    Raises:
        UnsupportedModelError: Always.
    """
    name = type(model).__name__
    raise UnsupportedModelError(f"{name}.transform {_ITERATIVE[name]}")


@writes("transform", "DictionaryLearning", "MiniBatchDictionaryLearning", "SparseCoder")
def codes(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Codes by thresholds.

    Raises:
        UnsupportedModelError: The algorithm is another one.
    """
    name = type(model).__name__
    if model.transform_algorithm != "threshold":
        raise UnsupportedModelError(
            f"{name}(transform_algorithm={model.transform_algorithm!r}) searches the code of each "
            "row step by step; only transform_algorithm='threshold' is a fixed function"
        )
    words = np.asarray(getattr(model, "components_", getattr(model, "dictionary", None)))
    alpha = 1.0 if model.transform_alpha is None else float(model.transform_alpha)
    likeness = x.cast(np.float64) @ writer.const(words.T, np.float64)
    found = likeness.unary("Sign") * (likeness.unary("Abs") - alpha).at_least(0.0)
    if getattr(model, "positive_code", False):
        found = found.at_least(0.0)
    if model.split_sign:
        found = writer.concat([found.at_least(0.0), (-found).at_least(0.0)])
    return found.floats()


def _log_likelihoods(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Of each component, its weight included, float64 (N, C)."""
    wide = x.cast(np.float64)
    means = np.asarray(model.means_, dtype=np.float64)
    roots = np.asarray(model.precisions_cholesky_, dtype=np.float64)
    width = means.shape[1]
    parts = []
    for place, mean in enumerate(means):
        if model.covariance_type in ("full", "tied"):
            root = roots if model.covariance_type == "tied" else roots[place]
            turned = (wide - writer.const(mean, np.float64)) @ writer.const(root, np.float64)
            log_root = np.log(np.diag(root)).sum()
        else:
            root = np.broadcast_to(roots[place], (width,))
            turned = (wide - writer.const(mean, np.float64)) * writer.const(root, np.float64)
            log_root = np.log(root).sum()
        squares = (turned * turned).sum(keep=True)
        parts.append(squares * -0.5 + float(log_root - 0.5 * width * np.log(2 * np.pi)))
    weights = np.asarray(model._estimate_log_weights(), dtype=np.float64)
    if type(model).__name__ == "BayesianGaussianMixture":
        freedom = np.asarray(model.degrees_of_freedom_, dtype=np.float64)
        halves = 0.5 * (freedom - np.arange(width)[:, np.newaxis])
        log_lambda = width * np.log(2.0) + digamma(halves).sum(axis=0)
        weights = weights - 0.5 * width * np.log(freedom)
        weights = weights + 0.5 * (log_lambda - width / np.asarray(model.mean_precision_))
    return writer.concat(parts) + writer.const(weights.reshape(1, -1), np.float64)


@writes("label", "GaussianMixture", "BayesianGaussianMixture")
def likeliest(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The likeliest component."""
    return _log_likelihoods(writer, model, x).argmax()


@writes("proba", "GaussianMixture", "BayesianGaussianMixture")
def responsibilities(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """How likely each component made the row."""
    return _log_likelihoods(writer, model, x).softmax().floats()
