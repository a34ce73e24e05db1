"""Which input a category came in that a model refuses: its encoder is called after it.

onnxruntime says no more than the name of the node that failed. So the converter names each encoder
by where its values come from unchanged, and a refusal is told in the caller's words. An encoder
that has another name, such as in a bundle of an older version, is told without them.
"""

import re
from collections.abc import Sequence
from typing import Final

from edgepack.runtime.tensors import Array

# What OneHotEncoder says of a value that it was not fitted to: the caller's fault, not the model's.
_REFUSED: Final = "Unknown Category"
_NAMED: Final = re.compile(r"Name:'category (\d{1,4})\.(\d{1,6})'")
_EXPECTED: Final = "must be one of the categories that the model was fitted to"
_LONGEST_VALUE: Final = 40


def encoder_name(number: int, column: int) -> str:
    """What the encoder of a column is called in a model file.

    >>> encoder_name(2, 0)
    'category 2.0'

    Args:
        number: Of the input, in the contract's order, from 0.
        column: Of that input, from 0.
    """
    return f"category {number}.{column}"


def is_encoder_name(text: str) -> bool:
    """Whether a node's name says where its values come from."""
    return re.fullmatch(r"category \d+\.\d+", text) is not None


def refused(text: str, names: Sequence[str], feeds: Sequence[Array]) -> str | None:
    """Say what a model refused, in one line; None where that is not why it failed.

    The value is told where there is no doubt which one it was: a column that holds no other.

    Args:
        text: onnxruntime's.
        names: The inputs' names, in the contract's order.
        feeds: What they were given, in the same order: (N, C).
    """
    if _REFUSED not in text:
        return None
    found = _NAMED.search(text)
    if found is None:
        return f"a value {_EXPECTED}, got another"
    number, column = int(found[1]), int(found[2])
    if number >= len(feeds) or feeds[number].ndim != 2 or column >= feeds[number].shape[1]:
        return f"a value {_EXPECTED}, got another"
    where = f"input {names[number]!r}"
    if feeds[number].shape[1] > 1:
        where += f", column {column}"
    values = set(feeds[number][:, column].tolist())
    got = "another"
    if len(values) == 1:
        (value,) = values
        got = repr(value[:_LONGEST_VALUE]) if isinstance(value, str) else f"{value!r}"
    return f"{where} {_EXPECTED}, got {got}"
