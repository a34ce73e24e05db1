"""What onnxruntime makes of a file before it runs it: what stayed in float, and what is missing.

The optimized graph is the one for this processor; another may have other kernels.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import nodes_of
from edgepack.converter.onnx_quantizer.prepare import optimized_by

OLDEST_ENGINE: Final = (1, 17)  # what `edgepack[agent-onnx]` asks for
_FLOAT_KERNELS: Final = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "ConvTranspose": "ConvTranspose",
    "MatMul": "MatMul",
    "FusedMatMul": "MatMul",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
}
_MARKS: Final = ("QuantizeLinear", "DynamicQuantizeLinear")
_LEAST_WEIGHTS: Final = 64  # smaller layers are left in float on purpose
# Of onnxruntime's releases, the first that takes an opset of ONNX's own domain, and a file's IR.
_OPSETS: Final = {18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 23)}
_IR_VERSIONS: Final = {9: (1, 15), 10: (1, 18), 11: (1, 23)}
_NO_KERNEL: Final = re.compile(r"implementation for ([\w.]+)\(\d+\)|([\w.:]+)\(-?\d+\) is not a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """What was found.

    Attributes:
        float_operators: In a quantized file, layers with weights that run in float, by kind.
        left_over_qdq: Conversions that the engine could not fuse away: activations that leave
            8 bits and come back, and weights that are widened at every run.
        missing_operators: What the engine lacks.
        messages: The same for a person, one line each.
    """

    float_operators: dict[str, int]
    left_over_qdq: int
    missing_operators: tuple[str, ...]
    messages: tuple[str, ...]


def lint(data: bytes, engine: tuple[int, int] | None = None) -> Lint:
    """Let the engine optimize a file, and look at the result.

    Args:
        data: The file.
        engine: Version of onnxruntime that it must run on; None for the installed one alone.

    Raises:
        UnsupportedModelError: The engine cannot load it for another reason than a missing
            operator.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as exc:
        raise UnsupportedModelError(f"not an ONNX file: {one_line(exc)}") from exc
    missing = _too_new(model, engine) if engine else []
    try:
        # The level above only rearranges weights, and pads small ones to look large.
        extended = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        optimized = optimized_by(data, extended)
    except Exception as exc:
        lacks = _NO_KERNEL.search(str(exc))
        if lacks is None:
            raise UnsupportedModelError(f"onnxruntime cannot load it: {one_line(exc)}") from exc
        missing.append(lacks[1] or lacks[2])
        optimized = None
    floats: dict[str, int] = {}
    left_over = 0
    if optimized is not None and any(node.op_type in _MARKS for node in nodes_of(model)):
        floats, left_over = _float_operators(optimized), _left_over(optimized)
    return Lint(
        float_operators=floats,
        left_over_qdq=left_over,
        missing_operators=tuple(missing),
        messages=tuple(_messages(model, floats, left_over)),
    )


def _messages(model: ModelProto, floats: dict[str, int], left_over: int) -> list[str]:
    found = [f"{count} {kind} with weights run in float" for kind, count in floats.items()]
    if left_over:
        found.append(f"{left_over} conversions to and from 8 bits are not fused away")
    found += [f"{what}: a device needs a newer engine" for what in _too_new(model, OLDEST_ENGINE)]
    return found


def _too_new(model: ModelProto, engine: tuple[int, int]) -> list[str]:
    opset = max((item.version for item in model.opset_import if not item.domain), default=0)
    found = []
    for what, got, table in (
        ("opset", opset, _OPSETS),
        ("IR version", model.ir_version, _IR_VERSIONS),
    ):
        needs = table.get(got, (0, 0) if got < min(table) else max(table.values()))
        if needs > engine:
            found.append(f"{what} {got} needs onnxruntime {needs[0]}.{needs[1]} or later")
    return found


def _float_operators(model: ModelProto) -> dict[str, int]:
    """Float kernels whose weights are constants, or made from 8-bit constants at every run."""
    weights = {
        item.name
        for item in model.graph.initializer
        if item.data_type == TensorProto.FLOAT and _elements(item) >= _LEAST_WEIGHTS
    }
    weights |= {name for node in _widened_weights(model) for name in node.output}
    counts = Counter(
        _FLOAT_KERNELS[node.op_type]
        for node in nodes_of(model)
        if node.op_type in _FLOAT_KERNELS and weights & set(node.input[:2])
    )
    return dict(sorted(counts.items()))


def _left_over(model: ModelProto) -> int:
    """QuantizeLinear behind a DequantizeLinear, and weights that stay behind one."""
    constants = {item.name for item in model.graph.initializer}
    from_8bit: dict[str, bool] = {}  # the graph is sorted: makers come first
    returns = 0
    for node in model.graph.node:
        comes = node.op_type == "DequantizeLinear" and node.input[0] not in constants
        comes = comes or any(from_8bit.get(name, False) for name in node.input)
        if node.op_type == "QuantizeLinear" and comes:
            returns += 1
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            comes = False
        for name in node.output:
            from_8bit[name] = comes
    return returns + len(_widened_weights(model))


def _widened_weights(model: ModelProto) -> list[NodeProto]:
    sizes = {item.name: _elements(item) for item in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and sizes.get(node.input[0], 0) >= _LEAST_WEIGHTS
    ]


def _elements(tensor: TensorProto) -> int:
    size = 1
    for dimension in tensor.dims:
        size *= dimension
    return size
