"""Makes an ONNX file smaller as a `Quantization` says. Runs in a child process of its own."""

from collections.abc import Mapping
from typing import Final

from onnx import ModelProto

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import clean, summarise
from edgepack.converter.onnx_quantizer.compact import compact
from edgepack.converter.onnx_quantizer.dynamic import quantize_dynamic
from edgepack.converter.onnx_quantizer.half import to_half
from edgepack.converter.onnx_quantizer.prepare import prepare
from edgepack.converter.onnx_quantizer.ranges import METHODS, find_ranges
from edgepack.converter.onnx_quantizer.static import calibrated_tensors, quantize_static
from edgepack.converter.sources.source import FileSummary
from edgepack.converter.tools.tool import Quantization
from edgepack.runtime.tensors import Array

FP16: Final = "fp16"
DYNAMIC: Final = "dynamic"
STATIC: Final = "static"


def quantize_onnx(
    data: bytes, calibration: Mapping[str, Array], wish: Quantization
) -> tuple[bytes, FileSummary]:
    """Quantize a model; inputs and outputs keep their names and types.

    Args:
        data: The fp32 model.
        calibration: Tensor name → rows that set the ranges of activations (static only).
        wish: How.

    Returns:
        The quantized model and what is in it. The same arguments give the same bytes.

    Raises:
        UnsupportedModelError: The wish is not known, or this model cannot be taken.
    """
    check(wish)
    model = prepare(data)
    try:
        quantized = compact(clean(_quantized(model, calibration, wish)))
    except UnsupportedModelError:
        raise
    except Exception as exc:
        raise UnsupportedModelError(f"the quantizer failed: {one_line(exc)}") from exc
    return quantized.SerializeToString(deterministic=True), summarise(quantized)


def check(wish: Quantization) -> None:
    """Refuse a wish that nothing here can do.

    Raises:
        UnsupportedModelError: With what was expected.
    """
    for what, got, known in (
        ("scheme", wish.scheme, (FP16, DYNAMIC, STATIC)),
        ("activation", wish.activation, ("u8", "s8")),
        ("weight", wish.weight, ("u8", "s8")),
        ("calibration", wish.calibration, METHODS),
    ):
        if got not in known:
            raise UnsupportedModelError(f"{what} must be one of {', '.join(known)}, got {got!r}")
    if wish.scheme == STATIC and (wish.activation, wish.weight) == ("s8", "u8"):
        raise UnsupportedModelError("signed activations need signed weights, got u8")


def _quantized(
    model: ModelProto, calibration: Mapping[str, Array], wish: Quantization
) -> ModelProto:
    if wish.scheme == FP16:
        return to_half(model)
    if wish.scheme == DYNAMIC:
        return quantize_dynamic(model, wish)
    ranges = find_ranges(model, calibrated_tensors(model), calibration, wish.calibration)
    return quantize_static(model, ranges, wish)
