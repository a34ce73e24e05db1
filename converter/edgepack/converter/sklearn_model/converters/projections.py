"""Kernel approximations and random projections."""

from typing import Any

import numpy as np

from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_INTERVALS = {1: 0.8, 2: 0.5, 3: 0.4}


@writes("transform", "RBFSampler")
def rbf_sampler(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Cosines of random projections."""
    found = x.cast(np.float64) @ writer.const(model.random_weights_, np.float64)
    found = (found + writer.const(model.random_offset_, np.float64)).unary("Cos")
    return (found * float((2.0 / model.n_components) ** 0.5)).floats()


@writes("transform", "SkewedChi2Sampler")
def skewed_chi2(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Cosines of random projections of logarithms."""
    logs = (x.cast(np.float64) + float(model.skewedness)).log()
    found = logs @ writer.const(model.random_weights_, np.float64)
    found = (found + writer.const(model.random_offset_, np.float64)).unary("Cos")
    return (found * float((2.0 / model.n_components) ** 0.5)).floats()


@writes("transform", "AdditiveChi2Sampler")
def additive_chi2(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The Fourier components of the additive chi-squared kernel."""
    wide = x.cast(np.float64)
    steps = int(model.sample_steps)
    given = model.sample_interval
    interval = float(_INTERVALS[steps] if given is None else given)
    zero = wide.equals(0.0)
    safe = writer.where(zero, writer.const(np.array(1.0), np.float64), wide)
    nought = writer.const(np.array(0.0), np.float64)
    logs = safe.log() * interval
    parts = [(safe * interval).sqrt()]
    for step in range(1, steps):
        factor = (safe * (2 * interval / np.cosh(np.pi * step * interval))).sqrt()
        parts.append(factor * (logs * float(step)).unary("Cos"))
        parts.append(factor * (logs * float(step)).unary("Sin"))
    return writer.concat([writer.where(zero, nought, part) for part in parts]).floats()


@writes("transform", "PolynomialCountSketch")
def count_sketch(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Count sketches, convolved: their Fourier transforms multiplied, by plain matrices."""
    wide = x.cast(np.float64) * float(np.sqrt(model.gamma))
    hashes, signs = np.asarray(model.indexHash_), np.asarray(model.bitHash_)
    size, width = int(model.n_components), x_width(model)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size)) / size)
    real: Value | None = None
    imaginary: Value | None = None
    for places, bits in zip(hashes, signs, strict=True):
        sketch = np.zeros((len(places), size))
        sketch[np.arange(len(places)), places] = bits
        spectrum = sketch @ turn
        constant = spectrum[width:].sum(axis=0) * np.sqrt(model.coef0)
        terms = spectrum[:width]
        one = wide @ writer.const(terms.real, np.float64) + writer.const(constant.real, np.float64)
        two = wide @ writer.const(terms.imag, np.float64) + writer.const(constant.imag, np.float64)
        if real is None or imaginary is None:
            real, imaginary = one, two
        else:
            real, imaginary = real * one - imaginary * two, real * two + imaginary * one
    assert real is not None
    assert imaginary is not None
    back = turn.conj() / size
    found = real @ writer.const(back.real, np.float64)
    return (found - imaginary @ writer.const(back.imag, np.float64)).floats()


def x_width(model: Any) -> int:  # noqa: ANN401
    """How many columns the rows have, without the one that coef0 adds."""
    return int(model.n_features_in_)


@writes("transform", "GaussianRandomProjection", "SparseRandomProjection")
def random_projection(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """A product with random numbers."""
    axes = model.components_
    dense = axes.toarray() if hasattr(axes, "toarray") else np.asarray(axes)
    return x @ writer.const(dense.T.astype(np.float64))
