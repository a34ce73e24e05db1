"""A package's public names, each imported when it is first asked for (PEP 562).

A device that restarts a model needs a tenth of what `edgepack.bundle` offers, and its start waits
for every module that is imported. See docs/adr/0004.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping


def lazy_exports(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """Make a package's `__getattr__`.

    Args:
        package: The package's `__name__`.
        homes: Module of the package → the public names that live in it; its own name is the
            module itself.

    Returns:
        What finds a name: its module is imported, and the name kept in the package.

    Raises:
        AttributeError: (when called) The package has no such name.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{home_of[name]}")
        value = module if name == home_of[name] else getattr(module, name)
        setattr(importlib.import_module(package), name, value)
        return value

    return find
