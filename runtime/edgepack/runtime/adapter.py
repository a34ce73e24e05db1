"""Between the contract's arrays and one file's: dtypes, quantization, fixed batches, shapes.

This is the plain path: right for every model and every input. `edgepack.runtime.quick` is the
fast one, for the calls that need none of this.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgepack.bundle.contract import Contract, Nonfinite, TensorBinding, TensorSpec, Variant
from edgepack.runtime.affine import dequantize, quantize
from edgepack.runtime.engine import Session
from edgepack.runtime.errors import EngineError, UnsupportedModelError
from edgepack.runtime.labels import Labeller, labeller_of
from edgepack.runtime.tensors import DTYPES, Array, fits


class Adapter:
    """Runs one variant on arrays that already meet the contract.

    Raises:
        UnsupportedModelError: The variant's bindings do not go together.
    """

    def __init__(self, contract: Contract, variant: Variant, session: Session) -> None:
        self._session = session
        self._inputs = _pairs(contract.inputs, variant.inputs, variant.name)
        self._outputs = _pairs(contract.outputs, variant.outputs, variant.name)
        self._tensors = [binding.tensor for binding in to_open(variant).outputs]
        self._makers = [
            (self._tensors.index(binding.tensor), labeller_of(spec, binding, contract.class_names))
            for spec, binding in self._outputs
        ]
        batches = {binding.batch for _, binding in self._inputs}
        if len(batches) != 1:
            raise UnsupportedModelError(
                f"variant {variant.name!r}: every input must have the same batch, got {batches}"
            )
        self._batch = batches.pop()
        self._free_rows = all(spec.shape[0] < 0 for spec, _ in self._inputs)

    def run(self, arrays: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Run the variant.

        Args:
            arrays: In the contract's order, checked. The session must want its files' tensors
                in the same order: `ordered` and `to_open` see to it.

        Returns:
            Arrays in the order of the contract's outputs, with its dtypes and shapes; and the
            file's own arrays that they were made of.

        Raises:
            EngineError: The engine failed, or its outputs are not what the contract promises.
        """
        rows = arrays[0].shape[0]
        if rows == 0 and self._free_rows:
            nothing = [_nothing(spec) for spec, _ in self._outputs]
            return nothing, nothing
        feeds = [
            _to_file(array, spec, binding)
            for array, (spec, binding) in zip(arrays, self._inputs, strict=True)
        ]
        if self._batch is None or self._batch == rows:
            raw = self._session.run(feeds)
        else:
            raw = self._run_in_batches(feeds, rows, self._batch)
        outputs = [
            _from_file(raw[position], spec, binding, rows, labeller)
            for (position, labeller), (spec, binding) in zip(
                self._makers, self._outputs, strict=True
            )
        ]
        return outputs, raw

    def _run_in_batches(self, feeds: Sequence[Array], rows: int, batch: int) -> list[Array]:
        """Feed a file of a fixed batch; the last one is filled up with its last row."""
        parts: list[list[Array]] = []
        for begin in range(0, rows, batch):
            chunk = [feed[begin : begin + batch] for feed in feeds]
            taken = chunk[0].shape[0]
            if taken < batch:
                chunk = [
                    np.concatenate([part, np.repeat(part[-1:], batch - taken, axis=0)])
                    for part in chunk
                ]
            outputs = self._session.run([np.ascontiguousarray(part) for part in chunk])
            for tensor, output in zip(self._tensors, outputs, strict=True):
                if output.shape[:1] != (batch,):
                    raise EngineError(
                        f"tensor {tensor!r} must have {batch} rows, got {output.shape}"
                    )
            parts.append([output[:taken] for output in outputs])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


def ordered(contract: Contract, variant: Variant) -> Variant:
    """Put a variant's bindings in the order of the contract's tensors.

    Raises:
        UnsupportedModelError: A contract tensor has no binding, or a binding no tensor.
    """
    return replace(
        variant,
        inputs=tuple(b for _, b in _pairs(contract.inputs, variant.inputs, variant.name)),
        outputs=tuple(b for _, b in _pairs(contract.outputs, variant.outputs, variant.name)),
    )


def to_open(variant: Variant) -> Variant:
    """The variant as an engine opens it: no output tensor twice.

    A derived label is made of a tensor that may be an output of its own as well.
    """
    first = {binding.tensor: binding for binding in reversed(variant.outputs)}
    if len(first) == len(variant.outputs):
        return variant
    kept = dict.fromkeys(binding.tensor for binding in variant.outputs)
    return replace(variant, outputs=tuple(first[tensor] for tensor in kept))


def _pairs(
    specs: Sequence[TensorSpec], bindings: Sequence[TensorBinding], variant: str
) -> list[tuple[TensorSpec, TensorBinding]]:
    by_name = {binding.name: binding for binding in bindings}
    expected = sorted(spec.name for spec in specs)
    if sorted(by_name) != expected or len(bindings) != len(specs):
        raise UnsupportedModelError(
            f"variant {variant!r}: bindings must be for {expected}, got {sorted(by_name)}"
        )
    pairs = [(spec, by_name[spec.name]) for spec in specs]
    for spec, binding in pairs:
        if binding.scale is not None and spec.nonfinite is Nonfinite.NAN:
            raise UnsupportedModelError(
                f"variant {variant!r}: input {spec.name!r} takes NaN, which its quantized "
                f"tensor {binding.tensor!r} cannot hold"
            )
    return pairs


def _to_file(array: Array, spec: TensorSpec, binding: TensorBinding) -> Array:
    dtype = DTYPES[binding.dtype]
    if binding.scale is not None:
        return quantize(array, binding.scale, binding.zero_point or 0, dtype)
    if binding.dtype is not spec.datatype:
        return array.astype(dtype)
    return np.ascontiguousarray(array)


def _from_file(
    array: Array, spec: TensorSpec, binding: TensorBinding, rows: int, labeller: Labeller | None
) -> Array:
    if labeller is not None:
        array = labeller(array)
    elif binding.scale is not None:
        array = dequantize(array, binding.scale, binding.zero_point or 0)
    dtype = DTYPES[spec.datatype]
    if array.dtype != dtype:
        array = array.astype(dtype)
    if fits(array.shape, spec.shape):
        return array
    # Converters give (N, 1) for what the contract calls (N,), and the other way round.
    shape = (rows, *spec.shape[1:]) if spec.shape[0] < 0 else spec.shape
    try:
        return array.reshape(shape)
    except ValueError as exc:
        raise EngineError(
            f"output {spec.name!r} must have shape {list(spec.shape)}, got {list(array.shape)}"
        ) from exc


def _nothing(spec: TensorSpec) -> Array:
    return np.empty((0, *(max(size, 0) for size in spec.shape[1:])), DTYPES[spec.datatype])
