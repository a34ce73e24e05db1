"""Between TensorFlow Serving's rows and columns and a model's arrays, by the contract. Pure."""

from collections.abc import Mapping

import numpy as np

from edgepack.agent.serve.requests import to_inputs
from edgepack.agent.serve.wire_arrays import flatten, from_values
from edgepack.bundle.contract import Contract, Nonfinite, TensorSpec
from edgepack.runtime.errors import InputError
from edgepack.runtime.tensors import Array
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.open_inference import InferRequest
from edgepack.wire.tensorflow_serving import PredictRequest


def inputs_of(request: PredictRequest, contract: Contract) -> dict[str, Array]:
    """The arrays that a model takes; rows may name inputs, or the features of them.

    Raises:
        InputError: They do not fit the contract.
    """
    specs = {spec.name: spec for spec in contract.inputs}
    if request.rows:
        if not request.rows[0].keys() & specs.keys():
            return _of_features(request.rows, contract)
        columns: Mapping[str, JsonValue] = {
            name: [row[name] for row in request.rows] for name in request.rows[0]
        }
    elif request.columns is not None:
        columns = request.columns
    elif len(specs) == 1:
        columns = {next(iter(specs)): request.only}
    else:
        raise InputError(f"a model of several inputs needs them by name: {', '.join(specs)}")
    unknown = [name for name in columns if name not in specs]
    if unknown:
        raise InputError(f"input {unknown[0][:64]!r} is not in the contract: {', '.join(specs)}")
    return {name: _array(value, specs[name]) for name, value in columns.items()}


def predictions_of(outputs: Mapping[str, Array]) -> list[JsonValue]:
    """The outputs by sample: values of the only output, or objects by name."""
    listed = {name: nested(array) for name, array in outputs.items()}
    if len(listed) == 1:
        return next(iter(listed.values()))
    rows = zip(*listed.values(), strict=True)
    return [dict(zip(listed, row, strict=True)) for row in rows]


def columns_of(outputs: Mapping[str, Array]) -> JsonValue:
    """The outputs by name, or the values of the only one."""
    listed: dict[str, JsonValue] = {name: nested(array) for name, array in outputs.items()}
    return next(iter(listed.values())) if len(listed) == 1 else listed


def nested(array: Array) -> list[JsonValue]:
    """An array as nested lists; what JSON has no number for is null."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            array = array.astype(np.object_)
            array[~finite] = None
    values: list[JsonValue] = array.tolist()
    return values


def _of_features(rows: tuple[Mapping[str, JsonValue], ...], contract: Contract) -> dict[str, Array]:
    made = [to_inputs(InferRequest(None, None, row), contract) for row in rows]
    try:
        return {name: np.concatenate([one[name] for one in made]) for name in made[0]}
    except ValueError as exc:
        raise InputError("all rows must have the same shape") from exc


def _array(value: JsonValue, spec: TensorSpec) -> Array:
    if not isinstance(value, list):
        raise InputError(f"input {spec.name!r} must be a list with one value for each sample")
    shape = []
    inner: JsonValue = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    flat = flatten(value, spec.name)
    if len(flat) != int(np.prod(shape, dtype=object)):
        raise InputError(f"input {spec.name!r} must be lists of the same length")
    array = from_values(flat, spec.datatype, spec.name, null_is_nan=spec.nonfinite is Nonfinite.NAN)
    if len(shape) == len(spec.shape) - 1 and spec.shape[-1] == 1:
        shape.append(1)  # one number for each sample of a column
    return array.reshape(shape)
