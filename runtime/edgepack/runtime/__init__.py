"""Runs a bundle's model: `load(path).predict({"x": array})`.

Importing this package imports no engine: that happens when a model is loaded.
"""

from typing import TYPE_CHECKING

from edgepack.trust.lazy_exports import lazy_exports

if TYPE_CHECKING:
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
    from edgepack.runtime.loading import choose_variant, load
    from edgepack.runtime.model import Model
    from edgepack.runtime.options import SessionOptions
    from edgepack.runtime.parity import Comparison, compare
    from edgepack.runtime.selftest import SelfTestResult, run_selftest
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "errors": (
                "EngineError",
                "EngineMissingError",
                "InputError",
                "ParityError",
                "TensorFileError",
                "UnsupportedModelError",
                "VariantError",
            ),
            "golden": (
                "Golden",
                "parse_golden",
                "render_golden",
            ),
            "loading": (
                "choose_variant",
                "load",
            ),
            "model": ("Model",),
            "options": ("SessionOptions",),
            "parity": (
                "Comparison",
                "compare",
            ),
            "selftest": (
                "SelfTestResult",
                "run_selftest",
            ),
        },
    )

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
