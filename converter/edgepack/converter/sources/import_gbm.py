"""Imports what the sources of gradient boosting need, in the child process."""

import importlib

from edgepack.converter.errors import MissingPackageError


def import_for(name: str, library: str) -> None:
    """Import a library and what converts its models.

    Args:
        name: Of the library, for a person: "XGBoost".
        library: Its module.

    Raises:
        MissingPackageError: Something is not installed.
    """
    try:
        importlib.import_module(library)
        importlib.import_module("edgepack.converter.gbm_model.natives")
    except ImportError as exc:
        raise MissingPackageError(
            f"{name} models need {exc.name}: pip install 'edgepack[gbm]'"
        ) from exc
