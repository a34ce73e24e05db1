"""Tells the wrappers of the libraries."""

from typing import Any, Final

LIBRARIES: Final = ("xgboost", "lightgbm", "catboost")


def library_of(model: Any) -> str | None:  # noqa: ANN401
    """The library that a wrapper's class, or one that it derives from, is of."""
    for parent in type(model).__mro__:
        name = parent.__module__.partition(".")[0]
        if name in LIBRARIES:
            return name
    return None
