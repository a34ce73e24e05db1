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
    ("ai.onnx.ml::Linear", "a linear model is one small operator that has no 8-bit form"),
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
        activation, weight, reduce_range, per_channel: As in `Quantization`, of static int8, or
            None to try several. TFLite has one kind of integers, and takes the last one only.
        keep_float: Layers to leave in float in any case.
    """

    precisions: tuple[Precision, ...]
    calibration: str | None = None
    activation: str | None = None
    weight: str | None = None
    reduce_range: bool | None = None
    per_channel: bool | None = None
    keep_float: tuple[str, ...] = ()

    def applied(self, wish: Quantization, file_format: str) -> Quantization:
        """A wish for static int8 with what was decided."""
        wish = replace(
            wish,
            calibration=self.calibration or wish.calibration,
            per_channel=wish.per_channel if self.per_channel is None else self.per_channel,
        )
        if file_format != "onnx":
            return wish
        signed = self.activation == "s8" or self.reduce_range  # unsigned weights have neither
        weight = self.weight or ("s8" if signed else wish.weight)
        reduced = wish.reduce_range if self.reduce_range is None else self.reduce_range
        return replace(
            wish,
            activation=self.activation or wish.activation,
            weight=weight,
            reduce_range=reduced and weight == "s8",
        )


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
    for usual, candidate in found:
        family = _FAMILIES[candidate.scheme]
        if Precision.AUTO not in pinned.precisions and family not in wanted:
            continue
        wish = candidate
        if wish.scheme == "static":
            wish = pinned.applied(wish, file_format)
        if wish.scheme != "fp16":
            wish = replace(wish, keep_float=pinned.keep_float)
        if wish not in [plan.wish for plan in plans]:
            precision = _PRECISIONS[wish.scheme]
            changed = wish.scheme == "static" and replace(wish, keep_float=()) != candidate
            name = _name(file_format, wish) if changed else usual
            plans.append(Plan(name=name, precision=precision, family=family, wish=wish))
    return plans


def _name(file_format: str, wish: Quantization) -> str:
    """What a kind of static int8 is called: its integers, scales and ranges."""
    kind = ""
    if file_format == "onnx":
        kind = f"-{wish.activation}{wish.weight}" + ("-reduced" if wish.reduce_range else "")
    scales = "" if wish.per_channel else "-tensor"
    ranges = "" if wish.calibration == "percentile" else f"-{wish.calibration}"
    return f"{file_format}-int8{kind}{scales}{ranges}"


_PRECISIONS = {"fp16": "fp16", "static": "int8", "dynamic": "int8"}
_FAMILIES = {"fp16": "fp16", "static": "int8 static", "dynamic": "int8 dynamic"}
_FAMILY_OF = {
    Precision.FP16: "fp16",
    Precision.INT8: "int8 static",
    Precision.INT8_DYNAMIC: "int8 dynamic",
}
