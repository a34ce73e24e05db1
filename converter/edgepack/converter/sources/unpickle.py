"""Loads pickles and joblib files without running what is not on a list.

A pickle is a program: it may call whatever it can name. Here it can name only the explicit
(module, name) pairs of `picklable_names.txt`; a module prefix would not do, for `numpy.memmap`
overwrites a file. joblib writes arrays between the pickle's opcodes and, for arrays of objects, a
second pickle inside the first: from version 1.6 it reads that one through the same list (1.5.2 ran
`os.system` from there).

This runs in the child process, which has a memory and time limit and, while a file is unpickled,
an audit hook that refuses to start programs, to open connections and to open files for writing.
"""

import importlib
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from edgepack.converter.errors import (
    MissingPackageError,
    ModelFileError,
    UnsafeModelError,
    one_line,
)
from edgepack.converter.sources.compressed import open_unpacked

_NAMES_FILE = Path(__file__).with_name("picklable_names.txt")
# Pickles of protocols 0 to 2 use Python 2's names.
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_OLDEST_SAFE_JOBLIB = (1, 6)
_MOST_SHOWN = 80
_GBM = ("xgboost", "lightgbm", "catboost")
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    UnicodeError,
    OSError,
    RecursionError,
)


def load_pickle(path: Path, *, trust_pickle: bool) -> object:
    """Load a pickle or a joblib file, compressed or not.

    Args:
        path: The file.
        trust_pickle: Run whatever the file asks for. For files that the user made.

    Raises:
        UnsafeModelError: It names something that is not on the list.
        ModelFileError: It is damaged, or was made by versions whose names are gone.
        MissingPackageError: joblib is too old, or a trusted file needs a package.
    """
    unpickler_class = _trusting_unpickler() if trust_pickle else _safe_unpickler()
    with open_unpacked(path) as file:
        unpickler = unpickler_class(str(path), file, True)
        try:
            if trust_pickle:
                return unpickler.load()
            with _guarded():
                return unpickler.load()
        except ModuleNotFoundError as exc:
            hint = ": pip install 'edgepack[gbm]'" if exc.name in _GBM else ""
            raise MissingPackageError(
                f"{path.name} needs the Python module {exc.name!r}, which is not installed{hint}"
            ) from exc
        except ImportError as exc:
            raise ModelFileError(f"{path.name} cannot be loaded: {one_line(exc)}") from exc
        except _DAMAGED as exc:
            raise ModelFileError(
                f"{path.name} is damaged or was saved by other versions: {_damage(exc)}"
            ) from exc


def _damage(exc: Exception) -> str:
    if type(exc) is KeyError and isinstance(exc.args[0], int):  # pickle's own is the bare number
        return f"byte {exc.args[0]} stands where a pickle instruction must"
    return one_line(exc)


@cache
def allowed_names() -> frozenset[tuple[str, str]]:
    """Every (module, name) that a file may ask for."""
    pairs: set[tuple[str, str]] = set()
    for line in _NAMES_FILE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            module, _, names = line.partition(":")
            pairs.update((module, name) for name in names.split())
    return frozenset(pairs)


def _joblib_unpickler() -> Any:  # noqa: ANN401  (joblib ships no types)
    try:
        import joblib
        from joblib.numpy_pickle import NumpyUnpickler
    except ImportError as exc:
        raise MissingPackageError(
            "scikit-learn models need joblib: pip install 'edgepack[sklearn]'"
        ) from exc
    version = tuple(int(part) for part in joblib.__version__.split(".")[:2] if part.isdigit())
    if version < _OLDEST_SAFE_JOBLIB:
        raise MissingPackageError(
            f"joblib must be 1.6 or later (older ones run hidden pickles), got "
            f"{joblib.__version__}: pip install 'joblib>=1.6'"
        )
    return NumpyUnpickler


def _trusting_unpickler() -> Callable[[str, BinaryIO, bool], pickle.Unpickler]:
    unpickler: Callable[[str, BinaryIO, bool], pickle.Unpickler] = _joblib_unpickler()
    return unpickler


@cache
def _safe_unpickler() -> Callable[[str, BinaryIO, bool], pickle.Unpickler]:
    base = _joblib_unpickler()
    from joblib.numpy_pickle import NumpyArrayWrapper as wrapper_base  # noqa: N813

    parent_build = base.dispatch[pickle.BUILD[0]]

    class SafeUnpickler(base):  # type: ignore[misc, valid-type]
        """Finds what is on the list, and lets no pickle change what it found."""

        dispatch: ClassVar[dict[int, Any]] = dict(base.dispatch)

        def find_class(self, module: str, name: str) -> object:
            """Find a name that is on the list."""
            module = _OLD_MODULES.get(module, module)
            if (module, name) not in allowed_names():
                raise UnsafeModelError(
                    f"the file asks for {module[:_MOST_SHOWN]}.{name[:_MOST_SHOWN]}, which is not "
                    "on the list of what a scikit-learn model needs; it was not run (if you made "
                    "the file yourself: --trust-pickle)"
                )
            if (module, name) == ("_codecs", "encode"):
                return _encode
            if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                return SafeArrayWrapper
            _import_listed(module)
            return super().find_class(module, name)

        def load_build(self) -> None:
            """Give an object its state, but no class or function, and no dtype a false one."""
            target = self.stack[-2]
            if isinstance(target, type | types.FunctionType | types.BuiltinFunctionType):
                raise UnsafeModelError(
                    f"the file tries to change {target.__name__[:_MOST_SHOWN]} itself; refused"
                )
            _check_booster(target, self.stack[-1])
            parent_build(self)
            _check_dtype(target)

    class SafeArrayWrapper(wrapper_base):  # type: ignore[misc]
        """Says where in the file an array lies; one of objects is read by a SafeUnpickler too."""

        def __setstate__(self, state: dict[str, Any]) -> None:
            if not _is_array_state(state):
                raise UnsafeModelError(
                    "the file holds an array with a strange description; refused"
                )
            self.__dict__.update(state)

        def read_array(self, unpickler: Any, ensure_native_byte_order: bool) -> Any:  # noqa: ANN401
            """Read the array: see joblib."""
            if self.dtype.hasobject:
                return SafeUnpickler(unpickler.filename, unpickler.file_handle, True).load()
            return super().read_array(unpickler, ensure_native_byte_order)

    SafeUnpickler.dispatch[pickle.BUILD[0]] = SafeUnpickler.load_build
    return SafeUnpickler


def _is_array_state(state: object) -> bool:
    import numpy as np

    kinds: dict[str, type | tuple[type, ...]] = {
        "subclass": type,
        "shape": tuple,
        "order": str,
        "dtype": np.dtype,
        "allow_mmap": bool,
        "numpy_array_alignment_bytes": (int, type(None)),
    }
    if not isinstance(state, dict) or not {"subclass", "shape", "order", "dtype"} <= set(state):
        return False
    known = all(isinstance(value, kinds.get(key, ())) for key, value in state.items())
    sizes = all(isinstance(size, int) and size >= 0 for size in state["shape"])
    return known and sizes and state["subclass"] in (np.ndarray, np.matrix)


def _check_booster(target: object, state: object) -> None:
    """LightGBM ends its process where a damaged model text misleads it: that is read here first."""
    lightgbm = sys.modules.get("lightgbm")
    if lightgbm is None or not isinstance(target, lightgbm.Booster) or not isinstance(state, dict):
        return
    from edgepack.converter.gbm_model.lightgbm_trees import read_lightgbm

    text = state.get("_handle", state.get("handle"))
    if not isinstance(text, str):
        raise UnsafeModelError("the file holds a LightGBM booster without a model text; refused")
    read_lightgbm(text)


def _encode(text: object, encoding: object = None) -> bytes:
    """The one use that pickles of protocol 2 have for `_codecs.encode`: bytes as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafeModelError("the file asks for _codecs.encode with another codec; refused")
    return text.encode("latin-1")


def _check_dtype(target: object) -> None:
    """A dtype whose state hides that it holds objects would read raw bytes as pointers."""
    import numpy as np

    if not isinstance(target, np.dtype):
        return
    inner = [field[0] for field in (target.fields or {}).values()]
    if target.subdtype is not None:
        inner.append(target.subdtype[0])
    if any(part.hasobject for part in inner) and not target.hasobject:
        raise UnsafeModelError("the file holds a numpy dtype that denies its objects; refused")
    if target.kind == "O" and not target.hasobject:
        raise UnsafeModelError("the file holds a numpy dtype that denies its objects; refused")


_REFUSED_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.fork",
    "os.forkpty",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "os.kill",
    "os.putenv",
    "shutil.",
    "subprocess.Popen",
    "socket.",
    "pty.spawn",
    "urllib.Request",
    "webbrowser.open",
)
_guard_active = False
_guard_installed = False


@contextmanager
def _guarded() -> Iterator[None]:
    """Refuse side effects while a file is unpickled: the wall behind the list."""
    global _guard_active, _guard_installed  # noqa: PLW0603  (an audit hook cannot be taken back)
    if not _guard_installed:
        sys.addaudithook(_refuse_side_effects)
        _guard_installed = True
    no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _guard_active = True
    try:
        yield
    finally:
        _guard_active = False
        sys.dont_write_bytecode = no_bytecode


def _import_listed(module: str) -> None:
    """Import a module of the list without the guard: some set environment variables for it."""
    global _guard_active  # noqa: PLW0603
    if module in sys.modules:
        return
    was_active, _guard_active = _guard_active, False
    try:
        importlib.import_module(module)
    finally:
        _guard_active = was_active


def _refuse_side_effects(event: str, args: tuple[object, ...]) -> None:
    if not _guard_active:
        return
    if event.startswith(_REFUSED_EVENTS) or (event == "open" and _opens_for_writing(args)):
        raise UnsafeModelError(f"the file tried {event} while it was loaded; refused")


def _opens_for_writing(args: tuple[object, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return isinstance(flags, int) and bool(flags & writing)
