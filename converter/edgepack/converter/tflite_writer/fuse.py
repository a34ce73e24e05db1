"""Folds what TFLite's kernels do on the way: activations, and factors and addends of channels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Draft, Operation, Tensor, needed
from edgepack.runtime.tensors import Array

_CODES = schema.ActivationFunctionType
_ACTIVATIONS = {
    "RELU": _CODES.RELU,
    "RELU6": _CODES.RELU6,
    "RELU_N1_TO_1": _CODES.RELU_N1_TO_1,
}
_FUSES_ACTIVATION = frozenset(
    {"ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV"}
    | {"FULLY_CONNECTED", "MAX_POOL_2D", "MUL", "SUB"}
)
# Which dimension of the weights counts the output's channels.
_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def fuse(draft: Draft, outputs: Sequence[Tensor]) -> None:
    """Rewrite the draft's operations in place; the outputs stay."""
    draft.operations = needed(draft.operations, outputs)
    uses: Counter[Tensor] = Counter(outputs)
    for operation in draft.operations:
        uses.update(tensor for tensor in operation.inputs if tensor is not None)
    makers: dict[Tensor, Operation] = {}
    kept = []
    for operation in draft.operations:
        before = _single_maker(operation, makers, uses)
        if before is not None and (
            _fuse_activation(before, operation) or _fold_constant(draft, before, operation)
        ):
            before.output = operation.output
            makers[operation.output] = before
            continue
        kept.append(operation)
        makers[operation.output] = operation
    draft.operations = kept
    draft.makers = makers


def _single_maker(
    operation: Operation, makers: dict[Tensor, Operation], uses: Counter[Tensor]
) -> Operation | None:
    """What makes the one computed input, if nothing else reads that."""
    computed = [t for t in operation.inputs if t is not None and t.data is None]
    if len(computed) != 1 or uses[computed[0]] != 1:
        return None
    return makers.get(computed[0])


def _fuse_activation(before: Operation, operation: Operation) -> bool:
    if operation.code not in _ACTIVATIONS or before.code not in _FUSES_ACTIVATION:
        return False
    if before.output.dtype != "float32" or before.options.fusedActivationFunction != _CODES.NONE:
        return False
    before.options.fusedActivationFunction = _ACTIVATIONS[operation.code]
    return True


def _fold_constant(draft: Draft, before: Operation, operation: Operation) -> bool:
    """Fold `y * c`, `y + c` and `y - c` into the weights and the bias that make y."""
    if before.code not in _CHANNELS or before.options.fusedActivationFunction != _CODES.NONE:
        return False
    if operation.code not in ("ADD", "SUB", "MUL") or operation.output.dtype != "float32":
        return False
    if operation.options.fusedActivationFunction != _CODES.NONE:
        return False
    first, second = operation.inputs[:2]
    constant = second if first is before.output else first
    _, weights, bias = before.inputs
    if constant is None or weights is None or bias is None or weights.data is None:
        return False
    channels = before.output.shape[-1]
    if constant.data is None or constant.data.size not in (1, channels) or bias.data is None:
        return False
    if operation.output.shape != before.output.shape:
        return False
    if constant.data.size == channels != 1 and constant.shape[-1] != channels:
        return False
    if operation.code == "SUB" and second is not constant:
        return False
    numbers = np.broadcast_to(constant.data.reshape(-1).astype(np.float64), (channels,))
    new_weights, new_bias = weights.data, bias.data.astype(np.float64)
    if operation.code == "MUL":
        new_weights = _scaled(weights.data, numbers, _CHANNELS[before.code])
        new_bias = new_bias * numbers
    else:
        new_bias = new_bias + (numbers if operation.code == "ADD" else -numbers)
    before.inputs = (
        before.inputs[0],
        draft.constant(new_weights, weights.name),
        draft.bias(new_bias, bias.name),
    )
    return True


def _scaled(weights: Array, numbers: Array, axis: int) -> Array:
    shape = [1] * weights.ndim
    shape[axis] = -1
    scaled: Array = (weights.astype(np.float64) * numbers.reshape(shape)).astype(np.float32)
    return scaled
