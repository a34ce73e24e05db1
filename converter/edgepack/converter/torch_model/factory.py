"""The model that weights belong to, made by the user's own code: `--model-factory module:callable`.

Naming it is the user's wish to run it: the module may lie in the current folder.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgepack.converter.errors import RequestError, one_line


def make_model(factory: str) -> torch.nn.Module:
    """Import a factory and call it without arguments.

    Args:
        factory: "module:callable"; a class that takes no arguments is one too.

    Raises:
        RequestError: There is none of that name, it fails, or gives no module.
    """
    module_name, colon, path = factory.partition(":")
    names = [*module_name.split("."), *path.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        raise RequestError(f"model factory must be module:callable, got {factory[:80]!r}")
    with _current_folder():
        found: object = _imported(module_name, factory)
        for name in path.split("."):
            if not hasattr(found, name):
                raise RequestError(f"model factory {factory!r}: {module_name} has no {path!r}")
            found = getattr(found, name)
        if not callable(found):
            raise RequestError(f"model factory {factory!r} must be callable, got {found!r:.80}")
        try:
            model = found()
        except Exception as exc:
            raise RequestError(
                f"model factory {factory!r} must give the model when it is called without "
                f"arguments, got {type(exc).__name__}: {one_line(exc)}"
            ) from exc
    if not isinstance(model, torch.nn.Module):
        raise RequestError(
            f"model factory {factory!r} must give a torch.nn.Module, got {type(model).__name__}"
        )
    return model


def _imported(module_name: str, factory: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        where = " in the current folder or installed" if exc.name == module_name else ""
        raise RequestError(f"model factory {factory!r}: no module {exc.name!r}{where}") from exc
    except Exception as exc:
        raise RequestError(
            f"model factory {factory!r}: importing {module_name} failed: "
            f"{type(exc).__name__}: {one_line(exc)}"
        ) from exc


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, and first only while the factory runs.

    Afterwards they come last: a file called onnx.py there must not be taken for the real one.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)
