"""From a file to a fitted estimator."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from edgepack.converter.errors import (
    MissingPackageError,
    ModelFileError,
    UnsafeModelError,
    UnsupportedModelError,
    one_line,
)
from edgepack.converter.gbm_model.library_of import library_of
from edgepack.converter.gbm_model.natives import booster_model
from edgepack.converter.gbm_model.wrappers import is_fitted_catboost, restore_counts
from edgepack.converter.sklearn_model.estimator import SklearnModel
from edgepack.converter.sources.source import LoadedModel
from edgepack.converter.sources.unpickle import allowed_names, load_pickle

_MAX_SKOPS_BYTES = 4 << 30
_MOST_SHOWN = 5


def load_model(path: Path, *, trust_pickle: bool) -> LoadedModel:
    """Load a fitted scikit-learn estimator.

    Raises:
        ModelFileError: The file is damaged, or holds something else.
        UnsafeModelError: It asks for what is not on the list.
        UnsupportedModelError: The estimator is not fitted.
        MissingPackageError: joblib is too old, or skops is not installed.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        loaded = (
            _load_skops(path, trust_pickle=trust_pickle)
            if is_zip
            else load_pickle(path, trust_pickle=trust_pickle)
        )
    versions = {
        str(item.message.original_sklearn_version)
        for item in caught
        if isinstance(item.message, InconsistentVersionWarning)
    }
    booster = booster_model(loaded)
    if booster is not None:
        return booster
    if not (isinstance(loaded, BaseEstimator) or library_of(loaded)) or isinstance(loaded, type):
        raise ModelFileError(
            f"{path.name} holds a {type(loaded).__name__}, expected a fitted scikit-learn estimator"
        )
    try:
        if not is_fitted_catboost(loaded):
            check_is_fitted(loaded)
    except NotFittedError as exc:
        raise UnsupportedModelError(
            f"{path.name} holds a {type(loaded).__name__} that is not fitted"
        ) from exc
    except TypeError as exc:  # what sklearn says of an estimator without fit
        raise ModelFileError(f"{path.name} holds no estimator: {exc}") from exc
    restore_counts(loaded)
    return SklearnModel(loaded, messages=_version_messages(versions))


def _version_messages(versions: set[str]) -> tuple[str, ...]:
    if not versions:
        return ()
    return (
        f"the model was saved with scikit-learn {', '.join(sorted(versions))} and is read with "
        f"{sklearn.__version__}: its answers may differ from those it gave where it was trained",
    )


def _load_skops(path: Path, *, trust_pickle: bool) -> Any:  # noqa: ANN401  (whatever the file holds)
    try:
        from skops import io as skops_io
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError as exc:
        raise MissingPackageError(
            f"{path.name} needs skops: pip install 'edgepack[sklearn]'"
        ) from exc
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > _MAX_SKOPS_BYTES:
            raise ModelFileError(f"{path.name} unpacks to more than {_MAX_SKOPS_BYTES} bytes")
        asked: list[str] = skops_io.get_untrusted_types(file=path)
        refused = [
            name for name in asked if tuple(name.rpartition(".")[::2]) not in allowed_names()
        ]
        if refused and not trust_pickle:
            names = ", ".join(refused[:_MOST_SHOWN])
            raise UnsafeModelError(
                f"the file asks for {names}, which is not on the list of what a scikit-learn model "
                "needs; it was not run (if you made the file yourself: --trust-pickle)"
            )
        return skops_io.load(path, trusted=asked)
    except UntrustedTypesFoundException as exc:
        raise UnsafeModelError(f"{path.name}: {exc}") from exc
    except RuntimeError as exc:  # what zipfile says of an encrypted member
        raise ModelFileError(f"{path.name} cannot be read: {one_line(exc)}") from exc
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, OSError) as exc:
        raise ModelFileError(f"{path.name} is a damaged skops file: {exc}") from exc
