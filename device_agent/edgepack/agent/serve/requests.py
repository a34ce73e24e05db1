"""Between a caller's message and a model's arrays, by the contract. Pure."""

import math
from collections.abc import Container, Mapping

import numpy as np

from edgepack.agent.serve.wire_arrays import array_of, flatten, from_values, tensor_of
from edgepack.bundle.contract import Contract, Nonfinite, Task, TensorSpec
from edgepack.runtime.errors import InputError
from edgepack.runtime.parity import several_labels_of
from edgepack.runtime.tensors import Array, fits
from edgepack.trust.strict_json import JsonValue
from edgepack.trust.values import dataclass
from edgepack.wire.messages import Scalar
from edgepack.wire.open_inference import InferRequest, WireTensor

_MAX_FLAT_VALUES = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction, for people and dashboards.

    Attributes:
        label: The class, for tasks that give one.
        confidence: Largest probability, in 0..1, if the model gives probabilities.
        value: The number, for a regressor with one target.
        values: Every number and label of a small output, by name, for everything else.
    """

    label: str | None
    confidence: float | None
    value: float | None
    values: Mapping[str, float | str]

    def fields(self) -> dict[str, Scalar | None]:
        """The flat fields of `out/prediction`."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "value": self.value,
            **self.values,
        }


def to_inputs(request: InferRequest, contract: Contract) -> dict[str, Array]:
    """Turn a request into the arrays that `Model.predict` takes.

    Args:
        request: What the caller gave.
        contract: What the model wants.

    Returns:
        Contract name → array; a flat request is one sample.

    Raises:
        InputError: A feature is missing, unknown, or has a value of the wrong kind.
    """
    if request.tensors is not None:
        missing = {spec.name for spec in contract.inputs if spec.nonfinite is Nonfinite.NAN}
        check_wishes(request, {spec.name for spec in contract.outputs})
        return {
            tensor.name: array_of(tensor, null_is_nan=tensor.name in missing)
            for tensor in request.tensors
        }
    left = dict(request.features)
    inputs = {spec.name: _from_features(spec, left) for spec in contract.inputs}
    if left:
        raise InputError(f"request has unknown features: {_names(list(left))}")
    return inputs


def to_answer(outputs: Mapping[str, Array], contract: Contract) -> Answer:
    """The first sample of a model's outputs, flat.

    Args:
        outputs: What `Model.predict` returned, at least one sample.
        contract: Says what they mean.
    """
    label = outputs.get("label")
    value = outputs.get("value")
    probabilities = outputs.get("probabilities")
    confidence = None if probabilities is None else float(probabilities[0].max())
    several = several_labels_of(contract.task, outputs)
    if several is not None:
        return Answer(None, None, None, _labels(several, contract))
    if label is not None and contract.task is not Task.REGRESSION:
        return Answer(str(label[0]), confidence, None, {})
    if value is not None and value[0].size == 1:
        return Answer(None, None, float(np.ravel(value[0])[0]), {})
    values: dict[str, float | str] = {}
    for name, array in outputs.items():
        sample = np.ravel(array[0])
        if array.dtype.kind in "fiub" and len(values) + sample.size <= _MAX_FLAT_VALUES:
            values |= {f"{name}_{index}": float(item) for index, item in enumerate(sample)}
    return Answer(None, None, None, values)


def _labels(labels: Array, contract: Contract) -> dict[str, float | str]:
    """The first row's labels, by the names of their targets."""
    spec = next(item for item in contract.outputs if item.name == "label")
    targets = spec.feature_names or tuple(map(str, range(labels.shape[1])))
    found = zip(targets, labels[0].tolist(), strict=True)
    return {f"label_{target}": str(label) for target, label in list(found)[:_MAX_FLAT_VALUES]}


def to_tensors(
    outputs: Mapping[str, Array], request: InferRequest | None = None
) -> tuple[WireTensor, ...]:
    """A model's outputs as Open Inference Protocol tensors, as the request wants them.

    Raises:
        InputError: The request wants an output that the model does not have.
    """
    if request is None or not request.outputs:
        binary = request is not None and request.binary
        return tuple(tensor_of(name, array, binary=binary) for name, array in outputs.items())
    check_wishes(request, outputs)
    return tuple(
        tensor_of(wish.name, outputs[wish.name], binary=wish.binary) for wish in request.outputs
    )


def check_wishes(request: InferRequest, names: Container[str]) -> None:
    """Refuse a request for an output that there is not, before the model runs.

    Raises:
        InputError: It names one, or one twice.
    """
    wanted = [wish.name for wish in request.outputs]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise InputError(f"request wants outputs that the model does not have: {_names(unknown)}")
    if len(set(wanted)) != len(wanted):
        raise InputError("request wants an output twice")


def _from_features(spec: TensorSpec, left: dict[str, JsonValue]) -> Array:
    sample_shape = spec.shape[1:]
    if spec.name in left:
        value = left.pop(spec.name)
        flat = flatten([value], spec.name)
        shape = _shape_of(value)
        if -1 in sample_shape and math.prod(shape) == len(flat) and fits(shape, sample_shape):
            sample_shape = shape  # an image of any size: its rows say which
    else:
        missing = [name for name in spec.feature_names if name not in left]
        if missing or not spec.feature_names:
            raise InputError(f"request misses features: {_names(missing or [spec.name])}")
        flat = [left.pop(name) for name in spec.feature_names]
    free = sample_shape.count(-1)
    size = math.prod(n for n in sample_shape if n >= 0)
    if free == 1 and size and len(flat) % size == 0:
        sample_shape = tuple(len(flat) // size if n < 0 else n for n in sample_shape)
    elif free or len(flat) != size:
        raise InputError(
            f"input {spec.name!r} must have the shape {[1, *sample_shape]}, got {len(flat)} values"
        )
    null_is_nan = spec.nonfinite is Nonfinite.NAN
    array = from_values(flat, spec.datatype, spec.name, null_is_nan=null_is_nan)
    return array.reshape((1, *sample_shape))


def _shape_of(value: JsonValue) -> tuple[int, ...]:
    """The shape of nested lists, as far as their first items tell it."""
    shape = []
    while isinstance(value, list) and value:
        shape.append(len(value))
        value = value[0]
    return tuple(shape)


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
