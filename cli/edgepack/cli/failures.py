"""From an exception to what a person reads and what the shell gets."""

import errno
from dataclasses import dataclass

from edgepack.trust.errors import EdgepackError

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG})
_EXTRAS = {
    "aiomqtt": "fleet",
    "amqtt": "fleet",
    "rich": "fleet",
    "tomlkit": "fleet",
    "pyarrow": "data",
    "pandas": "data",
    "onnxruntime": "agent-onnx",
    "onnx": "sklearn",
    "sklearn": "sklearn",
    "skl2onnx": "sklearn",
    "joblib": "sklearn",
    "skops": "sklearn",
    "psutil": "bench",
}
_LONGEST_TEXT = 600


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of a failure.

    Attributes:
        code: Exit code.
        message: One line.
        hint: What to try, one line, or "".
    """

    code: int
    message: str
    hint: str = ""


def explain(exc: Exception) -> Failure:
    """Say in one line what went wrong, and whose turn it is."""
    if isinstance(exc, EdgepackError):
        return Failure(exc.exit_code, _one_line(exc), getattr(exc, "hint", ""))
    if isinstance(exc, ModuleNotFoundError):
        package = (exc.name or "").partition(".")[0]
        if package in _EXTRAS:
            hint = f"pip install 'edgepack[{_EXTRAS[package]}]'"
            return Failure(2, f"this command needs the package {package}, which is missing", hint)
    if isinstance(exc, OSError) and exc.filename is not None:
        code = 9 if exc.errno in _DISK else 2
        return Failure(code, f"{exc.filename}: {exc.strerror}")
    if isinstance(exc, OSError) and exc.errno in _DISK:
        return Failure(9, exc.strerror or str(exc))
    text = f"{type(exc).__name__}: {_one_line(exc)}"
    return Failure(1, f"{text} (this is a defect of edgepack)", "run it with -v for the traceback")


def _one_line(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
