"""The errors of `edgepack.converter`, split by who can act.

EdgepackError
└── ConvertError               (3) this model, with this data, cannot be converted
    ├── ModelFileError         the file is missing, empty, damaged, or no model
    ├── UnsafeModelError       the file asks for code that is not on the list
    ├── UnsupportedModelError  a model, but not one that has an exact ONNX form here
    ├── UnfitDataError         too few rows, a label of one class, NaN where none may be
    ├── WorkerError            the child process crashed, hung, or ran out of memory
    ├── RequestError           (2) the options contradict each other or the disk's state
    │   └── MissingPackageError   the source needs an extra that is not installed
    ├── ToleranceError         (6) no variant met its tolerance
    └── OutputError            (9) the output folder cannot be written
"""

import re

from edgepack.trust.errors import EdgepackError

_LONGEST_TEXT = 240
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class ConvertError(EdgepackError):
    """The model cannot be converted."""

    exit_code = 3


class ModelFileError(ConvertError):
    """The model file is missing, empty, damaged, or of a kind that edgepack does not know."""


class UnsafeModelError(ConvertError):
    """The model file asks for names that are not on the list; nothing of it was run."""


class UnsupportedModelError(ConvertError):
    """The file holds something that cannot become an ONNX model that answers the same."""


class UnfitDataError(ConvertError):
    """The data was read but does not do for this model."""


class WorkerError(ConvertError):
    """The child process that holds the model ended without an answer."""


class RequestError(ConvertError):
    """The request cannot be carried out as it stands."""

    exit_code = 2


class MissingPackageError(RequestError):
    """A package is missing; the message says what to install."""


class ToleranceError(ConvertError):
    """No variant met its tolerance."""

    exit_code = 6


class OutputError(ConvertError):
    """The output cannot be written."""

    exit_code = 9


def one_line(exc: BaseException) -> str:
    """The first lines of a foreign error, as one line of at most 240 characters."""
    text = " ".join(_COLOURS.sub("", str(exc)[:4000]).split()) or type(exc).__name__
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def what_is_wrong(exc: BaseException) -> str:
    """Why a zip file cannot be read; Python says of one that was cut off that it is none."""
    if str(exc) == "File is not a zip file":
        return "its end is missing, as of a copy that was cut off; copy or save it again"
    return one_line(exc)
