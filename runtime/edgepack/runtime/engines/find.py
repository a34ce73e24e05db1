"""Finds an engine by name without importing the others.

The engine "tflite-runtime" is the module `tflite_runtime` of this package. Importing such a
module does not import the engine's own package: that happens when a model is opened.
"""

import importlib
import importlib.util

import edgepack.runtime.engines as _package
from edgepack.runtime.engine import Engine
from edgepack.runtime.errors import UnsupportedModelError

_NOT_ENGINES = frozenset({"find"})


def engine_names() -> tuple[str, ...]:
    """Name every engine that edgepack knows, installed or not, sorted."""
    import pkgutil  # not for a device that knows which engine it wants

    modules = {module.name for module in pkgutil.iter_modules(_package.__path__)}
    return tuple(sorted(name.replace("_", "-") for name in modules - _NOT_ENGINES))


def engine_named(name: str) -> Engine:
    """Find an engine.

    Raises:
        UnsupportedModelError: edgepack has no engine of that name.
    """
    stem = name.replace("-", "_")
    path = f"{_package.__name__}.{stem}"
    if not stem.isidentifier() or stem in _NOT_ENGINES or importlib.util.find_spec(path) is None:
        raise UnsupportedModelError(
            f"engine must be one of {', '.join(engine_names())}, got {name[:80]!r}"
        )
    engine: Engine = importlib.import_module(path).ENGINE
    return engine
