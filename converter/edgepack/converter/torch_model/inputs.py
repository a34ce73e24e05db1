"""What a model takes, found from its own names and the data's shapes; and made-up rows of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from edgepack.converter.errors import RequestError, UnfitDataError, one_line
from edgepack.converter.sources.source import ArrayShape, LoadOptions

_SEED = 0
_PROBE_ROWS = (2, 1)  # a model may be written for one row
# Images come as bytes, tokens as whole numbers: what is tried first.
_FLOATS_FIRST = ("uint8", "int8", "bool")
_INTEGERS = ("uint8", "int8", "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input.

    Attributes:
        name: The contract's.
        shape: Without the rows.
        dtype: torch's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def example(inputs: Sequence[Input], rows: int, *, mean: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Rows to trace and to compare with: normal numbers round a mean, or zeros and ones."""
    generator = torch.Generator().manual_seed(_SEED)
    found = []
    for item in inputs:
        shape = (rows, *item.shape)
        if item.dtype.is_floating_point:
            found.append(torch.randn(shape, generator=generator, dtype=item.dtype) + mean)
        else:
            found.append(torch.randint(0, 2, shape, generator=generator).to(item.dtype))
    return tuple(found)


def find_inputs(
    required: Sequence[str],
    optional: Sequence[str],
    options: LoadOptions,
    call: Callable[..., Any],
) -> tuple[tuple[Input, ...], int | None]:
    """Decide on the inputs: their shapes by the user or the data, their types by trying.

    Args:
        required: Names of what the model must get.
        optional: Names of what it may get after them.
        options: What the user and the data say.
        call: The model.

    Returns:
        The inputs, and the number of rows that the model is written for, None if any.

    Raises:
        RequestError: Shapes were given that cannot be.
        UnfitDataError: The data does not tell, or the model refuses it.
    """
    shapes = _given(required, optional, options) or _from_data(required, optional, options.data)
    refusal: Exception | None = None
    for rows, inputs in product(_PROBE_ROWS, _typed(shapes)):
        try:
            with torch.no_grad():
                call(*example(inputs, rows))
        except Exception as exc:  # noqa: BLE001  (whatever a model raises for the wrong type)
            refusal = refusal or exc
            continue
        return inputs, None if rows == _PROBE_ROWS[0] else rows
    text = ", ".join(f"{s.name} {['N', *s.shape[1:]]} {s.dtype}" for s in shapes).replace("'", "")
    whose = "they were given" if options.input_shapes else "the data has them"
    raise UnfitDataError(
        f"the model refuses inputs as {whose} ({text}): {_cause(refusal)}"
    ) from refusal


def _cause(refusal: Exception | None) -> str:
    """TorchScript puts its own traceback before what went wrong."""
    text = " ".join(str(refusal).split())
    _, found, cause = text.rpartition("RuntimeError: ")
    return one_line(ValueError(cause if found else text))


def _given(
    required: Sequence[str], optional: Sequence[str], options: LoadOptions
) -> tuple[ArrayShape, ...]:
    shapes = options.input_shapes
    if not shapes:
        return ()
    names = [*required, *optional][: max(len(shapes), len(required))]
    if len(shapes) != len(names):
        raise RequestError(
            f"input shapes must be given for {', '.join(names) or 'no input'}, got {len(shapes)}"
        )
    if any(size < 1 for shape in shapes for size in shape[1:]):
        raise RequestError("input shapes must be > 0 after the first dimension, which is the batch")
    types = {array.name: array.dtype for array in options.data}
    in_order = [array.dtype for array in options.data]
    if len(in_order) != len(names):
        in_order = in_order if len(set(in_order)) == 1 else ["float32"]
        in_order = in_order[:1] * len(names)
    return tuple(
        ArrayShape(name=name, dtype=types.get(name, dtype), shape=shape)
        for name, dtype, shape in zip(names, in_order, shapes, strict=True)
    )


def _from_data(
    required: Sequence[str], optional: Sequence[str], data: Sequence[ArrayShape]
) -> tuple[ArrayShape, ...]:
    if not data:
        raise UnfitDataError(
            "the file does not tell the shape of the model's inputs: data or --input-shape must"
        )
    by_name = {array.name: array for array in data}
    if required and all(name in by_name for name in required):
        chosen = [*required, *(name for name in optional if name in by_name)]
        return tuple(by_name[name] for name in chosen)
    names = required or optional[:1]
    if len(names) != 1:
        raise UnfitDataError(
            f"data must have {', '.join(map(repr, names)) or 'no array'} by name for the model, "
            f"got {', '.join(repr(array.name) for array in data[:8])}"
        )
    tensors = [array for array in data if len(array.shape) > 1]
    if len(tensors) == 1:
        return (ArrayShape(name=names[0], dtype=tensors[0].dtype, shape=tensors[0].shape),)
    if tensors:
        raise UnfitDataError(
            f"data must have {names[0]!r} by name or one array of more than one dimension, "
            f"got {', '.join(repr(array.name) for array in tensors[:8])}"
        )
    types = {array.dtype for array in data}
    dtype = types.pop() if len(types) == 1 else "float32"
    return (ArrayShape(name=names[0], dtype=dtype, shape=(data[0].shape[0], len(data))),)


def _typed(shapes: Sequence[ArrayShape]) -> Iterator[tuple[Input, ...]]:
    """The types to try, the likelier first; text is none."""
    for item in shapes:
        if item.dtype not in _INTEGERS and not item.dtype.startswith("float"):
            raise UnfitDataError(f"input {item.name!r} must be numbers, got {item.dtype}")
    integers = [item.dtype in _INTEGERS for item in shapes]
    whole = _as(shapes, integers)
    floats = _as(shapes, [False] * len(shapes))
    if any(integers):
        tokens_last = all(item.dtype in _FLOATS_FIRST for item in shapes if item.dtype in _INTEGERS)
        yield from (floats, whole) if tokens_last else (whole, floats)
    else:
        yield floats


def _as(shapes: Sequence[ArrayShape], integers: Sequence[bool]) -> tuple[Input, ...]:
    return tuple(
        Input(
            name=item.name,
            shape=tuple(item.shape[1:]),
            dtype=torch.int64 if whole else torch.float32,
        )
        for item, whole in zip(shapes, integers, strict=True)
    )
