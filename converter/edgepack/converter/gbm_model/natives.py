"""The libraries' own boosters, from native files or pickles, with the answers that they give."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.booster import Booster, BoosterModel
from edgepack.converter.gbm_model.catboost_trees import read_catboost
from edgepack.converter.gbm_model.ensemble import Ensemble, Link
from edgepack.converter.gbm_model.hashed_categories import texts_of, unseen_message
from edgepack.converter.gbm_model.library_errors import library_line
from edgepack.converter.gbm_model.lightgbm_trees import read_lightgbm
from edgepack.converter.gbm_model.own_categories import xgboost_categories
from edgepack.converter.gbm_model.read import refuse_text_categories, xgboost_rounds
from edgepack.converter.gbm_model.xgboost_trees import objective_of, read_xgboost
from edgepack.converter.sources.compressed import MAX_MODEL_BYTES
from edgepack.runtime.tensors import Array

_XGBOOST_BINARY: Final = ("binary:logistic", "binary:hinge")
_XGBOOST_CLASSES: Final = (*_XGBOOST_BINARY, "multi:softprob", "multi:softmax")
_LIGHTGBM_CLASSES: Final = ("binary", "multiclass", "multiclassova")


def load_xgboost(path: Path) -> BoosterModel:
    """Load a .json or .ubj file.

    Raises:
        ModelFileError: It is damaged.
        UnsupportedModelError: It has no exact form here.
    """
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(_bytes(path)))
    except xgboost.core.XGBoostError as exc:
        raise ModelFileError(
            f"{path.name} is a damaged XGBoost model: {library_line(exc)}"
        ) from exc
    return of_xgboost(booster)


def load_lightgbm(path: Path) -> BoosterModel:
    """Load a model text.

    Raises:
        ModelFileError: It is damaged.
        UnsupportedModelError: It has no exact form here.
    """
    import lightgbm

    try:
        text = _bytes(path).decode()
    except UnicodeDecodeError as exc:
        raise ModelFileError(f"{path.name} is a damaged LightGBM model: it is no text") from exc
    read_lightgbm(text)  # the library ends its process where a damaged text misleads it
    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as exc:
        raise ModelFileError(
            f"{path.name} is a damaged LightGBM model: {library_line(exc)}"
        ) from exc
    return of_lightgbm(booster)


def load_catboost(path: Path) -> BoosterModel:
    """Load a .cbm file.

    Raises:
        ModelFileError: It is damaged.
        UnsupportedModelError: It has no exact form here.
    """
    import catboost

    data = _bytes(path)
    found = read_catboost(data)
    kind = catboost.CatBoostClassifier if found.is_classifier else catboost.CatBoostRegressor
    try:
        model = kind().load_model(blob=data)
    except catboost.CatBoostError as exc:
        raise ModelFileError(
            f"{path.name} is a damaged CatBoost model: {library_line(exc)}"
        ) from exc
    classes = np.asarray(model.classes_) if found.is_classifier else None

    # A model that is loaded from a file gives the logarithm, the one that was trained did not.
    kind_of_value = "Exponent" if found.ensemble.link is Link.EXP else "RawFormulaVal"

    def named(categories: Mapping[int, Array]) -> tuple[Ensemble, tuple[str, ...]]:
        texts = {place: texts_of(items) for place, items in categories.items()}
        again = read_catboost(data, texts)
        return again.ensemble, unseen_message([again])

    def answer(rows: Array) -> dict[str, Array]:
        if classes is None:
            return {"value": _value(model.predict(rows, prediction_type=kind_of_value))}
        predicted = np.asarray(model.predict(rows))
        label = predicted.reshape(len(rows)).astype(_label_type(classes))
        return {"label": label, "probabilities": np.asarray(model.predict_proba(rows), np.float64)}

    return BoosterModel(
        Booster(
            framework="CatBoost",
            version=catboost.__version__,
            objective=found.loss,
            ensemble=found.ensemble,
            answer=answer,
            classes=None if classes is None else classes.astype(_label_type(classes)),
            feature_names=_named(found.feature_names, "{}"),
            category_features=found.categories,
            named=named if found.categories else None,
        )
    )


def of_xgboost(booster: Any) -> BoosterModel:  # noqa: ANN401
    """A Booster; one that a scikit-learn wrapper saved answers as that does, up to its best round.

    Raises:
        UnsupportedModelError: It has no exact form here.
    """
    import json

    import xgboost

    if xgboost_categories(booster):
        refuse_text_categories("XGBoost")
    objective = objective_of(json.loads(booster.save_config()))
    wrapper = json.loads(booster.attr("scikit_learn") or "null")
    rounds = xgboost_rounds(booster, as_wrapper=wrapper is not None)
    ensemble = read_xgboost(bytes(booster.save_raw("json")), rounds=rounds)
    kind = wrapper.get("_estimator_type") if isinstance(wrapper, dict) else None
    classifies = objective in _XGBOOST_CLASSES and kind in (None, "classifier")
    several = classifies and objective in _XGBOOST_BINARY and ensemble.targets > 1
    classes = np.arange(max(ensemble.targets, 2)) if classifies and not several else None
    messages: tuple[str, ...] = ()
    if rounds is not None:
        messages = (f"the model stopped early: its first {rounds} rounds are used, as XGB* do",)
    elif booster.attr("best_iteration") is not None:
        messages = ("the model stopped early: all its rounds are used, as xgboost.Booster does",)

    def answer(rows: Array) -> dict[str, Array]:
        matrix = xgboost.DMatrix(
            rows,
            feature_names=booster.feature_names,
            feature_types=booster.feature_types,
            enable_categorical=True,
        )
        softmax = objective == "multi:softmax"  # its prediction is the class alone
        predicted = booster.predict(matrix, iteration_range=(0, rounds or 0), output_margin=softmax)
        if several:
            there = (predicted > 0.5).astype(np.int64)
            return {"label": there, "probabilities": np.asarray(predicted, np.float64)}
        if classes is None:
            return {"value": _value(predicted)}
        return _classified(_softmax(predicted) if softmax else predicted, classes)

    return BoosterModel(
        Booster(
            framework="XGBoost",
            version=xgboost.__version__,
            objective=objective,
            ensemble=ensemble,
            answer=answer,
            classes=classes,
            several_labels=several,
            feature_names=tuple(booster.feature_names or ()),
            messages=messages,
        )
    )


def of_lightgbm(booster: Any) -> BoosterModel:  # noqa: ANN401
    """A Booster, up to its best round.

    Raises:
        UnsupportedModelError: It has no exact form here.
    """
    import lightgbm

    if booster.pandas_categorical:
        refuse_text_categories("LightGBM")
    found = read_lightgbm(booster.model_to_string())
    classifies = found.objective in _LIGHTGBM_CLASSES
    classes = np.arange(max(found.ensemble.targets, 2)) if classifies else None

    def answer(rows: Array) -> dict[str, Array]:
        predicted = booster.predict(rows)
        return {"value": _value(predicted)} if classes is None else _classified(predicted, classes)

    return BoosterModel(
        Booster(
            framework="LightGBM",
            version=lightgbm.__version__,
            objective=found.objective,
            ensemble=found.ensemble,
            answer=answer,
            classes=classes,
            feature_names=_named(found.feature_names, "Column_{}"),
        )
    )


def booster_model(loaded: Any) -> BoosterModel | None:  # noqa: ANN401
    """What an unpickled object is, if it is one of the libraries' boosters."""
    makers: Mapping[tuple[str, str], Callable[[Any], BoosterModel]] = {
        ("xgboost", "Booster"): of_xgboost,
        ("lightgbm", "Booster"): of_lightgbm,
    }
    for (module, name), maker in makers.items():
        if module in sys.modules and type(loaded) is getattr(sys.modules[module], name):
            return maker(loaded)
    return None


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelFileError(f"{path.name} has more than {MAX_MODEL_BYTES} bytes")
    return path.read_bytes()


def _named(names: tuple[str, ...], made_up: str) -> tuple[str, ...]:
    """The names, unless the library made them up."""
    return () if names == tuple(made_up.format(index) for index in range(len(names))) else names


def _value(predicted: Array) -> Array:
    value = np.asarray(predicted, dtype=np.float64)
    return value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value


def _classified(predicted: Array, classes: Array) -> dict[str, Array]:
    """Label and probabilities from the probability of the second of two classes, or of each."""
    found = np.asarray(predicted)
    if found.ndim == 1:
        best = (found > 0.5).astype(np.int64)
        found = np.stack([1 - found, found], axis=1)
    else:
        best = np.argmax(found, axis=1)
    return {"label": classes[best], "probabilities": found.astype(np.float64)}


def _softmax(sums: Array) -> Array:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


def _label_type(classes: Array) -> Any:  # noqa: ANN401
    if classes.dtype.kind in "OU":
        return np.object_
    if classes.dtype.kind == "f" and not np.array_equal(classes, np.floor(classes)):
        raise UnsupportedModelError("class labels must be text or whole numbers, got fractions")
    return np.int64
