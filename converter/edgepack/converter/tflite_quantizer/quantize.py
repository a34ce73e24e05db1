# ruff: noqa: ANN401  (litert-quantizer ships no types)
"""fp16, dynamic and static int8 of a float32 TFLite file, by litert-quantizer.

Inputs and outputs stay float32: an integer interface saves no memory that matters, and would cost
every caller the rounding.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.tflite_graph import read, tensors_of
from edgepack.converter.tflite_quantizer.calibrate import Range, ranges_of
from edgepack.converter.tflite_quantizer.rewrite import (
    compacted,
    layer_names,
    with_float_weights,
    with_plain_names,
)
from edgepack.converter.tools.tool import Quantization
from edgepack.runtime.tensors import Array

STATIC: Final = "static"
_SCHEMES: Final = (STATIC, "dynamic", "fp16")


def quantize_tflite(data: bytes, feeds: Mapping[str, Array], wish: Quantization) -> bytes:
    """Quantize a float32 file.

    Args:
        data: The file.
        feeds: Tensor → rows to calibrate with, for static.
        wish: How.

    Raises:
        ModelFileError: The file is damaged.
        UnfitDataError: Static, and there are no rows that the file takes.
        UnsupportedModelError: The wish is not one for TFLite, or the quantizer fails on the file.
    """
    check(wish)
    wide = with_float_weights(data)
    plain = with_plain_names(wide)
    kept = _scopes(wide, plain, wish.keep_float)
    ranges = ranges_of(plain, feeds, wish.calibration) if wish.scheme == STATIC else {}
    quantized = apply(plain, wish, ranges, kept=kept)
    small = finish(data, quantized)
    if small == finish(data, plain):
        raise UnsupportedModelError(f"nothing in this file has a form for {wish.scheme}")
    return small


def check(wish: Quantization) -> None:
    """Refuse what TFLite does not have.

    Raises:
        UnsupportedModelError: It says what.
    """
    if wish.scheme not in _SCHEMES:
        raise UnsupportedModelError(
            f"scheme must be one of {', '.join(_SCHEMES)}, got {wish.scheme!r}"
        )
    if wish.scheme == "fp16":
        return
    if (wish.activation, wish.weight) != ("s8", "s8") or wish.reduce_range:
        raise UnsupportedModelError(
            "TFLite's 8-bit kernels take signed activations and weights of the full range, got "
            f"activation {wish.activation!r}, weight {wish.weight!r}, "
            f"reduce_range {wish.reduce_range}"
        )


def apply(
    plain: bytes,
    wish: Quantization,
    ranges: Mapping[str, Range],
    *,
    kept: tuple[str, ...] = (),
    only: str | None = None,
) -> bytes:
    """Quantize a file with plain names.

    Args:
        plain: The file.
        wish: How.
        ranges: Of its tensors, for static.
        kept: Scopes of operators to leave in float (`scope_of`).
        only: Scope of the one operator to quantize; None for all that can be.

    Raises:
        UnsupportedModelError: The quantizer fails on the file.
    """
    with _silence():
        from litert_quantizer.quantizer import Quantizer

        statistics = _statistics(plain, ranges)
        try:
            quantizer = Quantizer(plain, _recipe(wish, kept, only))
            result = quantizer.quantize(statistics or None, enable_progress_report=False)
        except Exception as exc:  # the quantizer raises whatever its algorithms do
            raise UnsupportedModelError(
                f"litert-quantizer cannot quantize this file: {one_line(exc)}"
            ) from exc
    if result.quantized_model is None:
        raise UnsupportedModelError("litert-quantizer made no file")
    return bytes(result.quantized_model)


def finish(data: bytes, quantized: bytes) -> bytes:
    """Make the file small, and see that its inputs and outputs are those of the float file.

    Raises:
        UnsupportedModelError: They are not.
    """
    small = compacted(quantized, data)
    if tensors_of(small) != tensors_of(data):
        raise UnsupportedModelError("litert-quantizer changed the inputs or outputs of the file")
    return small


def scope_of(plain: bytes, place: int) -> str:
    """What the quantizer calls an operator of a file with plain names."""
    graph = read(plain).graphs[0]
    operator = graph.operators[place]
    return ";".join(graph.tensors[item].name for item in operator.outputs) + ";"


def _scopes(data: bytes, plain: bytes, names: tuple[str, ...]) -> tuple[str, ...]:
    known = {name: place for place, name in enumerate(layer_names(data))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnsupportedModelError(
            f"keep_float must be of the file's layers, got {unknown[0][:80]!r}"
        )
    return tuple(scope_of(plain, known[name]) for name in names)


def _recipe(wish: Quantization, kept: tuple[str, ...], only: str | None) -> Any:
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        QuantGranularity,
        TensorDataType,
        TensorQuantizationConfig,
        TFLOperationName,
    )
    from litert_quantizer.recipe_manager import RecipeManager

    scopes = ".*" if only is None else _exactly(only)
    everything = TFLOperationName.ALL_SUPPORTED
    grain = QuantGranularity.CHANNELWISE if wish.per_channel else QuantGranularity.TENSORWISE
    recipe = RecipeManager()
    if wish.scheme == STATIC:
        recipe.add_static_config(scopes, everything, 8, 8, grain)
        for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    elif wish.scheme == "dynamic":
        recipe.add_dynamic_config(scopes, everything, 8, grain)
        # Its kernel reads a scale for each channel, whatever is there.
        depthwise = TFLOperationName.DEPTHWISE_CONV_2D
        recipe.add_dynamic_config(scopes, depthwise, 8, QuantGranularity.CHANNELWISE)
    else:
        half = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
        recipe.add_quantization_config(
            scopes,
            everything,
            OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            AlgorithmName.FLOAT_CASTING,
        )
    for scope in kept:
        recipe.add_quantization_config(
            _exactly(scope), everything, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return recipe.get_quantization_recipe()


def _exactly(scope: str) -> str:
    return f"^{re.escape(scope)}$"


def _statistics(plain: bytes, ranges: Mapping[str, Range]) -> dict[str, dict[str, Array]]:
    shapes = {tensor.name: tensor.shape for tensor in read(plain).graphs[0].tensors}
    return {
        name: {
            "min": np.full([1] * len(shapes[name]), found.low, np.float32),
            "max": np.full([1] * len(shapes[name]), found.high, np.float32),
        }
        for name, found in ranges.items()
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's own words to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
