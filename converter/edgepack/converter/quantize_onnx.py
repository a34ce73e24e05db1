"""8-bit ONNX with onnxruntime's quantizer. Runs in a child process of its own."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgepack.bundle.contract import Datatype
from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import (
    QUANTIZABLE,
    clean,
    datatype_of_element,
    quantizable_nodes,
    summarise,
)
from edgepack.converter.sources.source import FileSummary
from edgepack.runtime.tensors import DTYPES, Array

STATIC = "static"
DYNAMIC = "dynamic"
_SMALLEST_NODE_WEIGHTS = 64  # below, scales and zero points outweigh what is saved


def quantize_onnx(
    data: bytes, calibration: Mapping[str, Array], *, method: str
) -> tuple[bytes, FileSummary]:
    """Quantize a model's MatMul, Gemm and Conv to 8 bits.

    Static: QDQ with unsigned activations and signed weights of 7 bits. With all 8 bits, the
    16-bit sums of AVX2 saturate and the answers depend on the processor. Dynamic: unsigned
    weights, activations quantized while it runs; those kernels do not saturate.

    Args:
        data: The fp32 model.
        calibration: Tensor name → rows that set the ranges of activations (static only).
        method: "static" or "dynamic".

    Returns:
        The quantized model and what is in it.

    Raises:
        UnsupportedModelError: The quantizer cannot take this model.
    """
    logging.getLogger().setLevel(logging.ERROR)  # it logs advice on the root logger
    model = onnx.load_model_from_string(data)
    too_small = [
        node.name for node, count in quantizable_nodes(model) if count < _SMALLEST_NODE_WEIGHTS
    ]
    with tempfile.TemporaryDirectory() as folder:
        prepared, result = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        try:
            _prepare(model, prepared)
            if method == STATIC:
                quantize_static(
                    prepared,
                    result,
                    _Rows(calibration, model),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZABLE),
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                    reduce_range=True,
                    nodes_to_exclude=too_small,
                )
            else:
                quantize_dynamic(
                    prepared,
                    result,
                    op_types_to_quantize=list(QUANTIZABLE),
                    weight_type=QuantType.QUInt8,
                    nodes_to_exclude=too_small,
                )
            quantized = clean(onnx.load(result))
        except Exception as exc:
            raise UnsupportedModelError(f"the quantizer failed: {one_line(exc)}") from exc
    return quantized.SerializeToString(deterministic=True), summarise(quantized)


def _prepare(model: ModelProto, path: Path) -> None:
    try:
        quant_pre_process(model, path, skip_symbolic_shape=True)
    except Exception:  # noqa: BLE001  (shape inference fails on some graphs that quantize well)
        onnx.save(model, path)


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration rows one at a time, as the quantizer wants them."""

    def __init__(self, rows: Mapping[str, Array], model: ModelProto) -> None:
        kinds = {
            item.name: datatype_of_element(item.type.tensor_type.elem_type)
            for item in model.graph.input
        }
        batch = _fixed_batch(model)
        self._feeds = self._iterate(rows, kinds, batch)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, or None at the end."""
        return next(self._feeds, None)

    @staticmethod
    def _iterate(
        rows: Mapping[str, Array], kinds: Mapping[str, Datatype], batch: int | None
    ) -> Iterator[dict[str, Any]]:
        count = next(iter(rows.values())).shape[0]
        size = batch or count
        for begin in range(0, count - size + 1, size):
            yield {
                name: array[begin : begin + size].astype(DTYPES[kinds[name]], copy=False)
                for name, array in rows.items()
            }


def _fixed_batch(model: ModelProto) -> int | None:
    for item in model.graph.input:
        dimensions = item.type.tensor_type.shape.dim
        if dimensions and dimensions[0].dim_value > 0:
            return int(dimensions[0].dim_value)
    return None
