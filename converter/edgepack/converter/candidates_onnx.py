"""Which quantizations of an ONNX file are worth trying, in which order, and why. Pure.

Measured on the MLPerf Tiny models (keyword spotting on the official 1,000 samples, six draws of
calibration rows; visual wake words on 400 crops of photographs) and, where the processor matters,
repeated on an emulated Haswell:

- Weights of 8 bits under unsigned activations saturate the 16-bit sums of AVX2: keyword spotting
  fell from 91.4 % to 8.6 % correct there, with signed activations too. Weights of 7 bits and
  unsigned weights gave the same answers on both. So only those two are tried.
- The 99.99 % percentile was as good as or better than the extremes and entropy nearly everywhere.
- One scale a tensor beat one a channel on keyword spotting (91.6 % against 90.7 %) and lost on
  visual wake words (RMS 0.018 against 0.012): both are tried.
- Dynamic int8 keeps more of the accuracy than static, and is slower than fp32 for convolutions.
"""

from edgepack.converter.sources.source import FileSummary
from edgepack.converter.tools.tool import Quantization

_CALIBRATION = "percentile"
_STATIC = (
    (
        "onnx-int8-u8s8-reduced",
        Quantization(scheme="static", reduce_range=True, calibration=_CALIBRATION),
    ),
    (
        "onnx-int8-u8s8-reduced-tensor",
        Quantization(
            scheme="static", reduce_range=True, per_channel=False, calibration=_CALIBRATION
        ),
    ),
    (
        "onnx-int8-u8u8",
        Quantization(scheme="static", weight="u8", calibration=_CALIBRATION),
    ),
    # Where the extremes carry the answer (few rows, inputs with rare large values).
    (
        "onnx-int8-u8s8-reduced-minmax",
        Quantization(scheme="static", reduce_range=True),
    ),
    (
        "onnx-int8-u8s8-reduced-tensor-minmax",
        Quantization(scheme="static", reduce_range=True, per_channel=False),
    ),
)
_DYNAMIC = (
    (
        "onnx-int8-dynamic",
        Quantization(scheme="dynamic", weight="u8", per_channel=False),
    ),
)
_FP16 = (("onnx-fp16", Quantization(scheme="fp16")),)
_CONVOLUTIONS = ("ai.onnx::Conv", "ai.onnx::ConvTranspose")


def candidates(summary: FileSummary) -> tuple[tuple[str, Quantization], ...]:
    """Names and wishes to try for a float32 file, the most promising first.

    Every one of them answers the same on processors with and without VNNI.

    Args:
        summary: Of the float32 file; without weights there is nothing to try.
    """
    if summary.weights == 0:
        return ()
    convolves = any(operator in _CONVOLUTIONS for operator in summary.operators)
    # Without convolutions the dynamic form is fast too, and needs no calibration rows.
    int8 = (*_STATIC, *_DYNAMIC) if convolves else (*_STATIC[:1], *_DYNAMIC, *_STATIC[1:])
    return (*int8, *_FP16)
