"""Runs a bundle's model: `load(path).predict({"x": array})`.

Importing this package imports no engine: that happens when a model is loaded.
"""

from edgepack.runtime.errors import (
    EngineError,
    EngineMissingError,
    InputError,
    ParityError,
    TensorFileError,
    UnsupportedModelError,
    VariantError,
)
from edgepack.runtime.golden import Golden, parse_golden, render_golden
from edgepack.runtime.load import choose_variant, load
from edgepack.runtime.model import Model
from edgepack.runtime.options import SessionOptions
from edgepack.runtime.parity import Comparison, compare
from edgepack.runtime.selftest import SelfTestResult, run_selftest

__all__ = [
    "Comparison",
    "EngineError",
    "EngineMissingError",
    "Golden",
    "InputError",
    "Model",
    "ParityError",
    "SelfTestResult",
    "SessionOptions",
    "TensorFileError",
    "UnsupportedModelError",
    "VariantError",
    "choose_variant",
    "compare",
    "load",
    "parse_golden",
    "render_golden",
    "run_selftest",
]
