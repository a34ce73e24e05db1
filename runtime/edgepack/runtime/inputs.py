"""What the caller gives, checked against the contract.

Array-likes are taken and cast where no information that matters is lost: whole numbers to floats
(as every framework does), float64 to float32, and whole numbers to other whole numbers that hold
them all. Floats are never cut to whole numbers. All that is wrong is collected and raised once.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from edgepack.bundle.contract import Datatype, Nonfinite, TensorSpec
from edgepack.runtime.errors import InputError, one_line
from edgepack.runtime.tensors import DTYPES, Array, fits, strings

_SHOWN_ERRORS = 5
_SHOWN_NAMES = 10


def check_inputs(inputs: Mapping[str, object], specs: tuple[TensorSpec, ...]) -> list[Array]:
    """Check and cast the inputs.

    Args:
        inputs: By contract name: arrays, or lists of numbers or text.
        specs: The contract's inputs.

    Returns:
        Arrays in the order of `specs`, with the contract's dtypes. They may be the caller's own.

    Raises:
        InputError: One line with everything that is wrong (the first five).
    """
    if not isinstance(inputs, Mapping):
        raise InputError(
            f"inputs must be a mapping of {_names(spec.name for spec in specs)} to arrays, "
            f"got {type(inputs).__name__}"
        )
    problems = _names_problems(inputs, specs)
    arrays = []
    for spec in specs:
        if spec.name not in inputs:
            continue
        try:
            arrays.append(check_array(inputs[spec.name], spec))
        except InputError as exc:
            problems.append(str(exc))
    rows = {array.shape[0] for array, spec in zip(arrays, specs, strict=False) if spec.shape[0] < 0}
    if not problems and len(rows) > 1:
        problems.append(f"inputs must have the same number of rows, got {sorted(rows)}")
    if problems:
        more = len(problems) - _SHOWN_ERRORS
        raise InputError(
            "; ".join(problems[:_SHOWN_ERRORS]) + (f"; and {more} more" if more > 0 else "")
        )
    return arrays


def check_array(value: object, spec: TensorSpec) -> Array:
    """Check and cast one input.

    Raises:
        InputError: Its dtype, shape or values are not what the contract says.
    """
    where = f"input {spec.name!r}"
    # Left to itself numpy mixes text and bytes by force and cuts NUL off the end of text.
    as_objects = spec.datatype is Datatype.BYTES and not isinstance(value, np.ndarray)
    try:
        array = np.asarray(value, dtype=np.object_ if as_objects else None)
    except ValueError as exc:  # lists of different lengths
        raise InputError(f"{where} must be one array, got {one_line(exc)}") from exc
    if spec.datatype is Datatype.BYTES:
        array = _as_text(array, where)
    else:
        array = _as_numbers(array, spec, where)
    if not fits(array.shape, spec.shape):
        hint = ""
        if array.ndim == len(spec.shape) - 1 and fits(array.shape, spec.shape[1:]):
            hint = " (one sample is a batch of one: the first dimension is missing)"
        raise InputError(
            f"{where}: shape must be {_shape(spec.shape)}, got {_shape(array.shape)}{hint}"
        )
    if array.dtype.kind == "f":
        check_finite(array, spec)
    return array


def check_finite(array: Array, spec: TensorSpec) -> None:
    """Refuse infinities, and NaN where the contract does not take it as "missing".

    Raises:
        InputError: It says where the first one stands.
    """
    finite = np.isfinite(array)
    if finite.all():
        return
    nan_is_missing = spec.nonfinite is Nonfinite.NAN
    bad = np.isinf(array) if nan_is_missing else ~finite
    if not bad.any():
        return
    place = tuple(int(axis[0]) for axis in np.nonzero(bad))
    where = f"row {place[0]}" if place else "its only value"
    if len(place) > 1:
        column = place[-1]
        named = len(spec.feature_names) == array.shape[-1]
        feature = repr(spec.feature_names[column]) if named else str(column)
        where += f", feature {feature}"
    expected = "finite or NaN" if nan_is_missing else "finite"
    raise InputError(
        f"input {spec.name!r}: values must be {expected}, got {array[place]} at {where} "
        f"({int(bad.sum())} of {array.size} values)"
    )


def _as_text(array: Array, where: str) -> Array:
    if array.dtype.kind == "U":
        return array.astype(np.object_)
    if array.size == 0:
        return array.astype(np.object_)
    if array.dtype.kind not in "OS":
        raise InputError(f"{where}: dtype must be BYTES (text), got {array.dtype}")
    values = []
    for position, value in enumerate(array.reshape(-1).tolist()):
        if isinstance(value, bytes):
            try:
                values.append(value.decode())
            except UnicodeDecodeError as exc:
                raise InputError(f"{where}: bytes must be UTF-8, got {value[:40]!r}") from exc
        elif isinstance(value, str):
            values.append(str(value))
        else:
            raise InputError(
                f"{where}: values must be text, got {type(value).__name__} at position {position}"
            )
    return strings(values, array.shape)


def _as_numbers(array: Array, spec: TensorSpec, where: str) -> Array:
    wanted = DTYPES[spec.datatype]
    if array.dtype == wanted:
        return array if array.dtype.isnative else array.astype(wanted)
    if array.size == 0 and array.dtype.kind in "biuf":
        return array.astype(wanted)
    kinds = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}[wanted.kind]
    if array.dtype.kind not in kinds:
        raise InputError(f"{where}: dtype must be {spec.datatype}, got {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise InputError(
            f"{where}: values must fit {spec.datatype}, got {array.min()} to {array.max()}"
        )
    if wanted.kind == "f" and array.dtype.kind == "f" and array.dtype.itemsize > wanted.itemsize:
        lost = np.isinf(cast) & np.isfinite(array)
        if lost.any():
            raise InputError(f"{where}: values must fit {spec.datatype}, got {array[lost][0]}")
    return cast


def _names_problems(inputs: Mapping[str, object], specs: tuple[TensorSpec, ...]) -> list[str]:
    expected = [spec.name for spec in specs]
    missing = [name for name in expected if name not in inputs]
    extra = [str(name) for name in inputs if name not in expected]
    problems = []
    if missing:
        problems.append(f"input {_names(missing)} is missing, got {_names(inputs) or 'nothing'}")
    if extra:
        problems.append(
            f"input {_names(extra)} is not in the contract, expected {_names(expected)}"
        )
    return problems


def _names(names: Iterable[object]) -> str:
    listed = [repr(str(name)[:64]) for name in names]
    more = f" and {len(listed) - _SHOWN_NAMES} more" if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(listed[:_SHOWN_NAMES]) + more


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
