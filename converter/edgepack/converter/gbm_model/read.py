"""From a fitted model of one of the libraries to its trees."""

from typing import Any, Final, NoReturn

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.catboost_trees import read_catboost
from edgepack.converter.gbm_model.ensemble import Ensemble
from edgepack.converter.gbm_model.hashed_categories import hashed_columns, named_categories
from edgepack.converter.gbm_model.library_of import library_of
from edgepack.converter.gbm_model.lightgbm_trees import read_lightgbm
from edgepack.converter.gbm_model.own_categories import xgboost_categories
from edgepack.converter.gbm_model.xgboost_trees import read_xgboost


def ensemble_of(model: Any) -> Ensemble:  # noqa: ANN401
    """The trees of a scikit-learn wrapper, as its `predict` uses them.

    Raises:
        UnsupportedModelError: They have no exact form here.
        ModelFileError: The model is damaged.
    """
    library = library_of(model)
    if library is None:
        raise UnsupportedModelError(f"{type(model).__name__} is no gradient boosting model")
    return _READERS[library](model)


def xgboost_rounds(booster: Any, *, as_wrapper: bool) -> int | None:  # noqa: ANN401
    """How many rounds predictions use; the wrapper stops at the best one, a Booster does not."""
    best = booster.attr("best_iteration") if as_wrapper else None
    return None if best is None else int(best) + 1


def refuse_text_categories(library: str) -> NoReturn:
    """Say that a library's own categories are not converted where it does not see callers' columns.

    Raises:
        UnsupportedModelError: Always.
    """
    raise UnsupportedModelError(
        f"{library}'s own categories behind other steps have no ONNX form here: encode such "
        "columns in a scikit-learn pipeline before the model (OrdinalEncoder, OneHotEncoder)"
    )


def _of_xgboost(model: Any) -> Ensemble:  # noqa: ANN401
    booster = model.get_booster()
    if xgboost_categories(booster):
        refuse_text_categories("XGBoost")
    missing = float(model.missing)
    return read_xgboost(
        bytes(booster.save_raw("json")),
        rounds=xgboost_rounds(booster, as_wrapper=True),
        missing=missing if missing == missing else None,  # noqa: PLR0124  (NaN)
    )


def _of_lightgbm(model: Any) -> Ensemble:  # noqa: ANN401
    booster = model.booster_
    if booster.pandas_categorical:
        refuse_text_categories("LightGBM")
    # A copy of a booster forgets which round was the best; the wrapper does not.
    best = booster.best_iteration if booster.best_iteration > 0 else model.best_iteration_
    return read_lightgbm(booster.model_to_string(num_iteration=best or None)).ensemble


def _of_catboost(model: Any) -> Ensemble:  # noqa: ANN401
    named = named_categories(model)
    if named is None and hashed_columns(model):
        refuse_text_categories("CatBoost")
    return read_catboost(model._serialize_model(), named or {}).ensemble


_READERS: Final = {"xgboost": _of_xgboost, "lightgbm": _of_lightgbm, "catboost": _of_catboost}
