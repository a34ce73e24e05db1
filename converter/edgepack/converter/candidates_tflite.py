"""Which quantizations of a TFLite file are worth trying, in which order, and why. Pure.

Measured on the MLPerf Tiny models (keyword spotting on the official 1,000 samples, ten draws of
250 calibration rows; visual wake words on 450 crops of photographs, three draws of 150):

- The 99.99 % percentile was as good as the extremes on keyword spotting (91.4 % to 91.8 % correct
  against 91.1 % to 91.9 %, float 91.3 %) and better on visual wake words (RMS 0.011 against
  0.012). Entropy was no better than either.
- One scale a tensor makes files smaller by a tenth (keyword spotting 28 kB against 34 kB), and is
  less exact on visual wake words (RMS 0.020): it is tried, and stays where its answers do.
- Dynamic int8 needs no rows, is the smallest, and computes in int8 only where the processor has
  kernels for it.

All of them gave the same bits on a processor with VNNI and on an emulated Haswell without.
"""

from edgepack.converter.sources.source import FileSummary
from edgepack.converter.tools.tool import Quantization

_STATIC = Quantization(scheme="static", activation="s8", calibration="percentile")
_CANDIDATES = (
    ("tflite-int8", _STATIC),
    # Where the extremes carry the answer (few rows, inputs with rare large values).
    ("tflite-int8-minmax", Quantization(scheme="static", activation="s8")),
    (
        "tflite-int8-tensor",
        Quantization(scheme="static", activation="s8", calibration="percentile", per_channel=False),
    ),
    ("tflite-int8-dynamic", Quantization(scheme="dynamic", activation="s8")),
    ("tflite-fp16", Quantization(scheme="fp16")),
)


def candidates(summary: FileSummary) -> tuple[tuple[str, Quantization], ...]:
    """Names and wishes to try for a float32 file, the most promising first.

    Args:
        summary: Of the float32 file; without weights there is nothing to try.
    """
    return _CANDIDATES if summary.weights else ()
