"""What is worth trying for a float file, and under which name. Pure.

A plan that cannot help is left out with the reason, so that nobody waits for it.
"""

from dataclasses import dataclass, replace

from edgepack.converter.candidates_onnx import candidates as onnx_candidates
from edgepack.converter.candidates_tflite import candidates as tflite_candidates
from edgepack.converter.request import Precision
from edgepack.converter.sources.source import FileSummary
from edgepack.converter.tools.tool import Quantization

LEAST_WEIGHTS = 2048
_KINDS = (
    ("TreeEnsemble", "a tree ensemble compares numbers and multiplies none"),
    ("SVM", "a support vector machine is one operator that has no 8-bit form"),
    ("Linear", "a linear model is one small operator that has no 8-bit form"),
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What a person has decided.

    Attributes:
        precisions: What to make.
        calibration: How ranges are found, or None to try several ways.
        keep_float: Layers to leave in float in any case.
    """

    precisions: tuple[Precision, ...]
    calibration: str | None = None
    keep_float: tuple[str, ...] = ()


def plans_for(file_format: str, summary: FileSummary, pinned: Pinned) -> list[Plan]:
    """The plans for a float32 file, the most promising first.

    Args:
        file_format: "onnx" or "tflite".
        summary: Of the file.
        pinned: What was asked for.
    """
    found = (onnx_candidates if file_format == "onnx" else tflite_candidates)(summary)
    wanted = {_FAMILY_OF[item] for item in pinned.precisions if item in _FAMILY_OF}
    plans: list[Plan] = []
    for name, candidate in found:
        family = _FAMILIES[candidate.scheme]
        if Precision.AUTO not in pinned.precisions and family not in wanted:
            continue
        wish = candidate
        if wish.scheme == "static":
            wish = replace(wish, calibration=pinned.calibration or wish.calibration)
        if wish.scheme != "fp16":
            wish = replace(wish, keep_float=pinned.keep_float)
        if wish not in [plan.wish for plan in plans]:
            precision = _PRECISIONS[wish.scheme]
            plans.append(Plan(name=name, precision=precision, family=family, wish=wish))
    return plans


_PRECISIONS = {"fp16": "fp16", "static": "int8", "dynamic": "int8"}
_FAMILIES = {"fp16": "fp16", "static": "int8 static", "dynamic": "int8 dynamic"}
_FAMILY_OF = {
    Precision.FP16: "fp16",
    Precision.INT8: "int8 static",
    Precision.INT8_DYNAMIC: "int8 dynamic",
}
