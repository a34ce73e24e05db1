"""Sizes that a model file leaves open, from what the user says or the data has."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.converter.errors import RequestError, UnfitDataError
from edgepack.converter.sources.source import LoadOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenShape:
    """An input as a file has it.

    Attributes:
        name: Of the input.
        shape: With the rows first; None where any size goes.
    """

    name: str
    shape: tuple[int | None, ...]


def close_shapes(inputs: Sequence[OpenShape], options: LoadOptions) -> list[tuple[int, ...]]:
    """The sizes after the rows of each input.

    Raises:
        RequestError: Shapes were given that do not fit.
        UnfitDataError: The data does not tell the open ones.
    """
    if options.input_shapes and len(options.input_shapes) != len(inputs):
        raise RequestError(
            f"input shapes must be given for {', '.join(item.name for item in inputs)}, "
            f"got {len(options.input_shapes)}"
        )
    found = []
    for index, item in enumerate(inputs):
        if options.input_shapes:
            given = options.input_shapes[index]
            if not _fits(given, item) or any(size < 1 for size in given[1:]):
                raise RequestError(
                    f"input shape of {item.name!r} must be {_text(item)}, "
                    f"got {','.join(map(str, given))}"
                )
            found.append(given[1:])
        elif None in item.shape[1:]:
            found.append(_from_data(item, options, only=len(inputs) == 1)[1:])
        else:
            found.append(tuple(size or 1 for size in item.shape[1:]))
    return found


def _from_data(item: OpenShape, options: LoadOptions, *, only: bool) -> tuple[int, ...]:
    named = [array.shape for array in options.data if array.name == item.name]
    fitting = [array.shape for array in options.data if _fits(array.shape, item)]
    if named and _fits(named[0], item):
        return named[0]
    if only and len(fitting) == 1:
        return fitting[0]
    # A table is one array a column until it is matched with the model.
    if only and len(item.shape) == 2 and options.data:
        return (options.data[0].shape[0], len(options.data))
    raise UnfitDataError(
        f"the model leaves the shape of {item.name!r} open ({_text(item)}), and the data has no "
        "array that tells it: name one so, or give --input-shape"
    )


def _fits(shape: Sequence[int], item: OpenShape) -> bool:
    return len(shape) == len(item.shape) and all(
        want is None or got == want for got, want in zip(shape[1:], item.shape[1:], strict=True)
    )


def _text(item: OpenShape) -> str:
    return ",".join("N" if size is None else str(size) for size in item.shape)
