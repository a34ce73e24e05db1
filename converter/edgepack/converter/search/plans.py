"""What is worth trying for a float file, and under which name. Pure.

A plan that cannot help is left out with the reason, so that nobody waits for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.converter.request import Precision
from edgepack.converter.sources.source import FileSummary
from edgepack.converter.tools.tool import Quantization

LEAST_WEIGHTS = 2048
_KINDS = (
    ("TreeEnsemble", "a tree ensemble compares numbers and multiplies none"),
    ("SVM", "a support vector machine is one operator that has no 8-bit form"),
    ("Linear", "a linear model is one small operator that has no 8-bit form"),
)
_FP16 = Quantization(scheme="fp16")
_DYNAMIC = Quantization(scheme="dynamic", activation="u8", weight="u8", per_channel=False)
# Unsigned activations and signed weights of 7 bits: fused everywhere, and nothing saturates.
_REDUCED = Quantization(scheme="static", reduce_range=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One thing to try.

    Attributes:
        name: What the candidate is called while it is one: "onnx-int8-u8s8-entropy".
        precision: "fp16" or "int8".
        family: Candidates compete within it: "fp16", "int8 dynamic", "int8 static".
        wish: For the quantizer.
    """

    name: str
    precision: str
    family: str
    wish: Quantization

    @property
    def needs_rows(self) -> bool:
        """Whether calibration rows are needed."""
        return self.wish.scheme == "static"


def nothing_to_quantize(summary: FileSummary) -> str | None:
    """Why a smaller precision would gain nothing, or None if it may."""
    if summary.weights >= LEAST_WEIGHTS:
        return None
    if summary.weights == 0:
        for mark, reason in _KINDS:
            if any(mark in operator for operator in summary.operators):
                return f"nothing to quantize: {reason}"
        return "nothing to quantize: the model has no MatMul, Gemm or Conv with constant weights"
    return (
        f"nothing to gain: the model has {summary.weights} weights that could be 8-bit, "
        f"and below {LEAST_WEIGHTS} the scales cost more than is saved"
    )


def plans_for(file_format: str, precisions: Sequence[Precision]) -> list[Plan]:
    """The plans for a format, the most promising first.

    Args:
        file_format: "onnx" or "tflite".
        precisions: What was asked for.
    """
    wanted = {
        "fp16": {Precision.AUTO, Precision.FP16},
        "int8 static": {Precision.AUTO, Precision.INT8},
        "int8 dynamic": {Precision.AUTO, Precision.INT8_DYNAMIC},
    }
    found = _ONNX if file_format == "onnx" else _TFLITE
    return [
        Plan(
            name=f"{file_format}-{stem}",
            precision=stem.partition("-")[0],
            family=family,
            wish=wish,
        )
        for stem, family, wish in found
        if wanted[family] & set(precisions)
    ]


_ONNX = (
    ("int8", "int8 static", _REDUCED),
    ("int8-dynamic", "int8 dynamic", _DYNAMIC),
    ("fp16", "fp16", _FP16),
    (
        "int8-entropy",
        "int8 static",
        Quantization(scheme="static", reduce_range=True, calibration="entropy"),
    ),
    (
        "int8-percentile",
        "int8 static",
        Quantization(scheme="static", reduce_range=True, calibration="percentile"),
    ),
    # All 8 bits; unsigned weights do not saturate AVX2's sums.
    ("int8-u8u8", "int8 static", Quantization(scheme="static", weight="u8", per_channel=False)),
)
_TFLITE = (
    ("int8", "int8 static", Quantization(scheme="static", activation="s8")),
    ("int8-dynamic", "int8 dynamic", Quantization(scheme="dynamic", activation="s8")),
    ("fp16", "fp16", _FP16),
)
