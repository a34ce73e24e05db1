"""Matching the rows of a file to the inputs that a model takes.

By name where both sides have names, otherwise by order; the two are never mixed in silence.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgepack.bundle.contract import Contract, Datatype, TensorSpec
from edgepack.runtime.dataset import Array, Dataset, read_dataset
from edgepack.runtime.errors import DatasetError
from edgepack.runtime.tensors import DTYPES
from edgepack.trust.values import dataclass

_MAX_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrangedInputs:
    """Inputs by contract name, and what a person should know about how they were matched."""

    inputs: dict[str, Array]
    messages: tuple[str, ...]


def read_for_model(path: Path, contract: Contract, *, label: str | None = None) -> Dataset:
    """Read rows for a model: a folder's images and signals at the size that it takes.

    Where the contract takes images of any size, they are read as they are; if they have several,
    as its steps would resize them.

    Raises:
        DatasetError: See `read_dataset`.
    """
    if not path.is_dir() or len(contract.inputs) != 1:
        return read_dataset(path, label=label)
    from edgepack.bundle.pre_shapes import model_inputs  # a device with a sensor has no folder

    (spec,) = contract.inputs
    return read_dataset(
        path,
        label=label,
        image_size=image_size(spec),
        mixed_size=image_size(model_inputs(contract)[0]),
        audio_samples=spec.shape[1] if len(spec.shape) == 2 and spec.shape[1] > 0 else None,
    )


def to_inputs(dataset: Dataset, contract: Contract) -> dict[str, Array]:
    """The arrays that `Model.predict` takes, for every row of the dataset.

    Raises:
        DatasetError: A column is missing, or has another type or size than the model takes.
    """
    return arrange(dataset, contract.inputs).inputs


def arrange(dataset: Dataset, specs: Sequence[TensorSpec]) -> ArrangedInputs:
    """Match a dataset to input specifications.

    An input gets the array of its own name, or its `feature_names` as columns. When the file or
    the model has no names, a single input takes all columns (or the one array) by order.

    Raises:
        DatasetError: A column is missing, or has another type or size than the model takes.
    """
    used: list[str] = []
    by_order = _must_go_by_order(dataset, specs)
    if by_order:
        gathered = _by_order(dataset, specs, used)
    else:
        _check_names(dataset, specs)
        gathered = [_by_name(dataset, spec, used) for spec in specs]
    inputs = {spec.name: _fit(array, spec) for spec, array in zip(specs, gathered, strict=True)}
    messages = []
    if by_order and dataset.named and dataset.is_table:
        messages.append("columns are matched by order: the model has no column names")
    extra = [name for name in (*dataset.arrays, *dataset.unreadable) if name not in used]
    if extra:
        messages.append(f"columns that the model does not take are ignored: {_names(extra)}")
    return ArrangedInputs(inputs=inputs, messages=tuple(messages))


def made_up_names(input_name: str, columns: int) -> tuple[str, ...]:
    """Names for features that have none: "x0", "x1", … for an input called "x"."""
    return tuple(f"{input_name}{index}" for index in range(columns))


def image_size(spec: TensorSpec) -> tuple[int, int] | None:
    """Height and width of the images that an input takes, if it says them."""
    if len(spec.shape) != 4:
        return None
    first = 1 if spec.shape[3] in (1, 3) else 2
    height, width = spec.shape[first : first + 2]
    return (height, width) if height > 0 and width > 0 else None


def _must_go_by_order(dataset: Dataset, specs: Sequence[TensorSpec]) -> bool:
    if all(spec.name in dataset.arrays for spec in specs):
        return False
    if not dataset.named or _the_tensor(dataset) is not None:
        return True
    names = [name for spec in specs for name in spec.feature_names]
    known = set(dataset.arrays) | set(dataset.unreadable)
    if known.intersection(names):
        return False
    return len(specs) == 1 and (
        not names or tuple(names) == made_up_names(specs[0].name, len(names))
    )


def _by_order(dataset: Dataset, specs: Sequence[TensorSpec], used: list[str]) -> list[Array]:
    tensor = _the_tensor(dataset)
    columns: list[Array] = []
    if tensor is not None:
        used.append(tensor)
        if len(specs) == 1:
            return [dataset.arrays[tensor]]
        columns = list(dataset.arrays[tensor].reshape(dataset.rows, -1).T)
    elif dataset.is_table:
        used.extend(dataset.arrays)
        columns = list(dataset.arrays.values())
    if not columns or (len(specs) > 1 and any(-1 in spec.shape[1:] for spec in specs)):
        raise DatasetError(
            f"data must have {_names([spec.name for spec in specs])} by name, for the order does "
            f"not tell which is which, got {_names(list(dataset.arrays))}"
        )
    widths = [math.prod(spec.shape[1:]) for spec in specs]
    expected = sum(widths)
    if len(columns) != expected and expected >= 0:
        hint = "; is one of them the label?" if len(columns) == expected + 1 else ""
        raise DatasetError(
            f"data must have {expected} columns for the model, got {len(columns)}{hint}"
        )
    if len(specs) == 1:
        widths = [len(columns)]  # whatever the model leaves open
    return _dealt(dataset, columns, tensor, list(zip(specs, widths, strict=True)))


def _dealt(
    dataset: Dataset,
    columns: Sequence[Array],
    tensor: str | None,
    takers: Sequence[tuple[TensorSpec, int]],
) -> list[Array]:
    """Give every input as many columns as it takes, from left to right."""
    names = [tensor] * len(columns) if tensor else list(dataset.arrays)
    dealt: list[Array] = []
    begin = 0
    for spec, width in takers:
        part = slice(begin, begin + width)
        begin += width
        taken = columns[part] if tensor else [_cells(dataset, n, spec) for n in names[part]]
        dealt.append(taken[0] if width == 1 else _stack(taken, names[part], spec))
    return dealt


def _the_tensor(dataset: Dataset) -> str | None:
    """The one array that is not a column, if there is exactly one."""
    tensors = [name for name, array in dataset.arrays.items() if array.ndim > 1]
    return tensors[0] if len(tensors) == 1 else None


def _check_names(dataset: Dataset, specs: Sequence[TensorSpec]) -> None:
    missing: list[str] = []
    for spec in specs:
        if spec.name in dataset.arrays:
            continue
        wanted = spec.feature_names or (spec.name,)
        missing += [name for name in wanted if name not in dataset.arrays]
    for name in missing:
        if name in dataset.unreadable:
            raise DatasetError(f"column {name!r}: {dataset.unreadable[name]}")
    if missing:
        raise DatasetError(
            f"data misses {len(missing)} of the model's columns: {_names(missing)}; "
            f"it has {_names(list(dataset.arrays))}"
        )


def _by_name(dataset: Dataset, spec: TensorSpec, used: list[str]) -> Array:
    if spec.name in dataset.arrays:
        used.append(spec.name)
        return _cells(dataset, spec.name, spec)
    used.extend(spec.feature_names)
    columns = [_cells(dataset, name, spec) for name in spec.feature_names]
    if len(columns) == 1:
        return columns[0]
    return _stack(columns, list(spec.feature_names), spec)


def _cells(dataset: Dataset, name: str, spec: TensorSpec) -> Array:
    """A column; for a text input as the file writes it: "007" is not 7."""
    as_text = dataset.texts.get(name) if spec.datatype is Datatype.BYTES else None
    return dataset.arrays[name] if as_text is None else as_text


def _stack(columns: Sequence[Array], names: Sequence[str], spec: TensorSpec) -> Array:
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1:
            raise DatasetError(f"column {name!r} must have one value a row, got {column.shape[1:]}")
        if spec.datatype is not Datatype.BYTES:
            _check_numeric(column, name)
    if spec.datatype is Datatype.BYTES:
        columns = [_text(column, name) for name, column in zip(names, columns, strict=True)]
    return np.stack(columns, axis=1)


def _fit(array: Array, spec: TensorSpec) -> Array:
    wanted = spec.shape[1:]
    fitted = array.reshape(-1, 1) if array.ndim == 1 and len(wanted) == 1 else array
    got = fitted.shape[1:]
    matches = len(got) == len(wanted) and all(
        size in (-1, found) for size, found in zip(wanted, got, strict=True)
    )
    if not matches:
        if not _differ_in_layout_only(got, wanted):
            raise DatasetError(
                f"input {spec.name!r} must have shape {list(spec.shape)}, "
                f"got {list(fitted.shape)}{_label_hint(got, wanted)}{_rows_hint(got, spec)}"
            )
        fitted = fitted.reshape(-1, *wanted)  # the same values a row, only flattened
    return _cast(fitted, spec)


def _rows_hint(got: Sequence[int], spec: TensorSpec) -> str:
    return "" if len(spec.shape) > 1 or not got else "; the model has no dimension for rows"


def _differ_in_layout_only(got: Sequence[int], wanted: Sequence[int]) -> bool:
    """Tell whether one side is flat, or only has more dimensions of 1 than the other.

    Any other reshape would mix the values: (N, H, W, C) has as many as (N, C, H, W).
    """
    if -1 in wanted or math.prod(got) != math.prod(wanted):
        return False
    return min(len(got), len(wanted)) <= 1 or [n for n in got if n != 1] == [
        n for n in wanted if n != 1
    ]


def _label_hint(got: Sequence[int], wanted: Sequence[int]) -> str:
    one_too_many = len(got) == len(wanted) == 1 and got[0] == wanted[0] + 1
    return "; is one of the columns the label?" if one_too_many else ""


def _cast(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype is Datatype.BYTES:
        return _text(array, spec.name)
    name = spec.feature_names[0] if len(spec.feature_names) == 1 else spec.name
    _check_numeric(array, name)
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return array.astype(dtype)
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"input {name!r} must be whole numbers, got a missing value")
    if not np.array_equal(cast, array):
        raise DatasetError(f"input {name!r} must hold {spec.datatype} values, got others")
    return cast


def _text(array: Array, name: str) -> Array:
    if array.dtype == np.object_:
        return array
    if array.dtype.kind == "f" and not np.isnan(array).all():
        raise DatasetError(f"input {name!r} must be text, got {array.dtype}")
    text = np.empty(array.shape, dtype=np.object_)
    flat = (
        [""] * array.size if array.dtype.kind == "f" else [str(v) for v in array.ravel().tolist()]
    )
    text.ravel()[:] = flat
    return text


def _check_numeric(array: Array, name: str) -> None:
    if array.dtype.kind in "biuf":
        return
    flat = array.ravel()
    row, text = next(
        ((index, cell) for index, cell in enumerate(flat) if not _is_number(cell)), (0, flat[:1])
    )
    raise DatasetError(
        f"column {name!r} must be numeric, got text {str(text)[:40]!r} in row {row + 1}"
    )


def _is_number(cell: object) -> bool:
    try:
        float(str(cell))
    except ValueError:
        return False
    return True


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES_SHOWN])
    more = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
