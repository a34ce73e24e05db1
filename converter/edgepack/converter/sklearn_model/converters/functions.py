"""numpy's functions of one argument, for FunctionTransformer and transformed targets."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_SINGLE_ONLY = frozenset({"Acos", "Asin", "Atan", "Tan"})  # onnxruntime has no float64 of these
_OPERATORS = {
    "absolute": "Abs",
    "arccos": "Acos",
    "arcsin": "Asin",
    "arctan": "Atan",
    "ceil": "Ceil",
    "cos": "Cos",
    "exp": "Exp",
    "fabs": "Abs",
    "floor": "Floor",
    "log": "Log",
    "negative": "Neg",
    "reciprocal": "Reciprocal",
    "rint": "Round",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}
_FORMULAS: dict[str, Callable[[Value], Value]] = {
    "cosh": lambda x: (x.exp() + (-x).exp()) * 0.5,
    "deg2rad": lambda x: x * (np.pi / 180.0),
    "degrees": lambda x: x * (180.0 / np.pi),
    "exp2": lambda x: (x * np.log(2.0)).exp(),
    "expm1": lambda x: x.exp() - 1.0,
    "log10": lambda x: x.log() * (1.0 / np.log(10.0)),
    "log1p": lambda x: (x + 1.0).log(),
    "log2": lambda x: x.log() * (1.0 / np.log(2.0)),
    "positive": lambda x: x,
    "rad2deg": lambda x: x * (180.0 / np.pi),
    "radians": lambda x: x * (np.pi / 180.0),
    "sinh": lambda x: (x.exp() - (-x).exp()) * 0.5,
    "square": lambda x: x * x,
    "trunc": lambda x: x.unary("Sign") * x.unary("Abs").unary("Floor"),
}


def write_function(writer: Writer, function: Any, x: Value, arguments: Any = None) -> Value:  # noqa: ANN401
    """What a function of numpy gives for each value; None gives the values.

    Computed in float64, for what is near 1 or 0 loses its digits in `1 + x` and `e**x - 1`.

    Raises:
        UnsupportedModelError: It is no function of numpy, or takes more arguments.
    """
    if function is None:
        return x
    name = getattr(function, "__name__", "a function")
    known = name in _OPERATORS or name in _FORMULAS
    if not isinstance(function, np.ufunc) or not known or arguments:
        raise UnsupportedModelError(
            f"the function {name!r} cannot be exported: only numpy's own (log1p, sqrt, …) can"
        )
    wide = x.cast(np.float64)
    if name in _FORMULAS:
        return _FORMULAS[name](wide).floats()
    operator = _OPERATORS[name]
    if operator in _SINGLE_ONLY:
        return x.cast(np.float32).unary(operator).floats()
    return wide.unary(operator).floats()


@writes("transform", "FunctionTransformer")
def function_transform(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Its function of each value."""
    return write_function(writer, model.func, x, model.kw_args)
