"""The errors of `edgepack.runtime`, split by who can act.

EdgepackError
├── InputError               the caller's arrays are not what the contract says
├── DatasetError             a file of rows cannot be read, or does not fit the model
├── VariantError             the bundle has no variant of that name
├── TensorFileError          a safetensors file (golden samples, data) is malformed
├── ParityError              two sets of outputs cannot be compared at all
└── EngineError              the engine failed
    ├── EngineMissingError   the engine is not installed here
    └── UnsupportedModelError   the engine here cannot run this model
"""

from edgepack.trust.errors import EdgepackError

_LONGEST_TEXT = 300


class InputError(EdgepackError):
    """The caller's inputs do not meet the contract; the model was not run."""

    exit_code = 3


class DatasetError(EdgepackError):
    """A file of rows is missing, damaged, or does not fit the model's inputs."""

    exit_code = 3


class VariantError(EdgepackError):
    """The bundle has no such variant."""

    exit_code = 2


class TensorFileError(EdgepackError):
    """A file of tensors is malformed or does not hold what it should."""

    exit_code = 4


class ParityError(EdgepackError):
    """Outputs cannot be compared: other names, other shapes, other kinds."""

    exit_code = 6


class EngineError(EdgepackError):
    """The engine failed to load or to run the model."""

    exit_code = 6


class EngineMissingError(EngineError):
    """The engine that the variant needs is not installed."""

    exit_code = 2


class UnsupportedModelError(EngineError):
    """The engine is here but cannot run this variant."""

    exit_code = 3


def one_line(exc: BaseException) -> str:
    """Cut a foreign error's text to what helps: one line of at most 300 characters."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
