"""Gradient boosting: every objective's ONNX form answers as its library does."""

from typing import Any

import numpy as np
import pytest
from gbm_models import Machines, at_the_splits, machines, run_trees

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble, Link, Tree
from edgepack.converter.gbm_model.grow import Fork, grow, runs
from edgepack.converter.gbm_model.lightgbm_trees import read_lightgbm
from edgepack.converter.gbm_model.read import ensemble_of
from edgepack.converter.gbm_model.thresholds import float32_thresholds

pytest.importorskip("onnxruntime")
xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
catboost = pytest.importorskip("catboost")

X = {"n_estimators": 12, "verbosity": 0, "n_jobs": 1}
L = {"n_estimators": 12, "verbose": -1, "n_jobs": 1, "min_child_samples": 5}
C = {"n_estimators": 12, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
CATEGORY = {"enable_categorical": True, "feature_types": ["q", "q", "q", "c", "q"]}
FOREST = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}


def _xgb(target: str, kind: str = "XGBRegressor", **more: Any) -> tuple[Any, str]:
    return lambda: getattr(xgboost, kind)(**X | more), target


def _lgb(target: str, kind: str = "LGBMRegressor", **more: Any) -> tuple[Any, str]:
    return lambda: getattr(lightgbm, kind)(**L | more), target


def _cat(target: str, kind: str = "CatBoostRegressor", **more: Any) -> tuple[Any, str]:
    return lambda: getattr(catboost, kind)(**C | more), target


XC, LC, CC = "XGBClassifier", "LGBMClassifier", "CatBoostClassifier"
CASES = {
    "xgboost": _xgb("value"),
    "xgboost two classes": _xgb("two", XC),
    "xgboost four classes": _xgb("four", XC),
    "xgboost forest": _xgb("value", "XGBRFRegressor"),
    "xgboost forest of classes": _xgb("four", "XGBRFClassifier"),
    "xgboost several trees a round": _xgb("four", XC, num_parallel_tree=3, subsample=0.5),
    "xgboost dart": _xgb("four", XC, booster="dart", rate_drop=0.3),
    "xgboost exact": _xgb("two", XC, tree_method="exact"),
    "xgboost categories": _xgb("four", XC, max_cat_to_onehot=1, **CATEGORY),
    "xgboost categories one by one": _xgb("value", max_cat_to_onehot=100, **CATEGORY),
    "xgboost own missing mark": _xgb("value", missing=0.5),
    "xgboost base score": _xgb("two", XC, base_score=0.2),
    "xgboost several targets": _xgb("both"),
    "xgboost quantiles": _xgb("value", objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]),
    "xgboost hinge": _xgb("two", objective="binary:hinge"),
    "xgboost hinge classes": _xgb("two", XC, objective="binary:hinge"),
    "xgboost log odds": _xgb("two", objective="binary:logitraw"),
    "xgboost logistic regression": _xgb("two", objective="reg:logistic"),
    "xgboost poisson": _xgb("count", objective="count:poisson"),
    "xgboost gamma": _xgb("count", objective="reg:gamma"),
    "xgboost tweedie": _xgb("count", objective="reg:tweedie"),
    "xgboost absolute error": _xgb("count", objective="reg:absoluteerror"),
    "xgboost huber": _xgb("count", objective="reg:pseudohubererror"),
    "xgboost log error": _xgb("count", objective="reg:squaredlogerror"),
    "lightgbm": _lgb("value"),
    "lightgbm two classes": _lgb("two", LC),
    "lightgbm text classes": _lgb("text", LC),
    "lightgbm one against all": _lgb("text", LC, objective="multiclassova"),
    "lightgbm forest": _lgb("value", **FOREST),
    "lightgbm forest of two classes": _lgb("two", LC, **FOREST),
    "lightgbm forest of classes": _lgb("text", LC, **FOREST),
    "lightgbm dart": _lgb("two", LC, boosting_type="dart"),
    "lightgbm zero is missing": _lgb("value", zero_as_missing=True),
    "lightgbm none is missing": _lgb("value", use_missing=False),
    "lightgbm steep sigmoid": _lgb("two", LC, sigmoid=2.0),
    "lightgbm square roots": _lgb("value", reg_sqrt=True),
    "lightgbm l1": _lgb("count", objective="regression_l1"),
    "lightgbm huber": _lgb("count", objective="huber"),
    "lightgbm fair": _lgb("count", objective="fair"),
    "lightgbm quantile": _lgb("count", objective="quantile"),
    "lightgbm mape": _lgb("count", objective="mape"),
    "lightgbm poisson": _lgb("count", objective="poisson"),
    "lightgbm gamma": _lgb("count", objective="gamma"),
    "lightgbm tweedie": _lgb("count", objective="tweedie"),
    "lightgbm cross entropy": _lgb("two", objective="cross_entropy"),
    "lightgbm cross entropy lambda": _lgb("two", objective="cross_entropy_lambda"),
    "catboost": _cat("value"),
    "catboost two classes": _cat("two", CC),
    "catboost text classes": _cat("text", CC),
    "catboost one against all": _cat("text", CC, loss_function="MultiClassOneVsAll"),
    "catboost cross entropy": _cat("two", CC, loss_function="CrossEntropy"),
    "catboost depthwise": _cat("text", CC, grow_policy="Depthwise"),
    "catboost lossguide": _cat("value", grow_policy="Lossguide"),
    "catboost NaN is large": _cat("value", nan_mode="Max"),
    "catboost several targets": _cat("both", loss_function="MultiRMSE"),
    "catboost mae": _cat("count", loss_function="MAE"),
    "catboost quantile": _cat("count", loss_function="Quantile:alpha=0.7"),
    "catboost huber": _cat("count", loss_function="Huber:delta=1"),
    "catboost poisson": _cat("count", loss_function="Poisson"),
    "catboost tweedie": _cat("count", loss_function="Tweedie:variance_power=1.5"),
}


@pytest.fixture(scope="module")
def data() -> Machines:
    """The rows and targets of every case."""
    return machines()


def _target(data: Machines, name: str) -> Any:
    if name == "text":
        return np.array(["a", "b", "c", "d"])[data.four]
    return np.stack([data.value, data.count], 1) if name == "both" else getattr(data, name)


def _check(model: Any, ensemble: Ensemble, rows: Any, dtype: Any) -> None:
    """The same labels on every row, and numbers within 1e-4 of the library's."""
    if not hasattr(model, "predict_proba"):
        expected = np.asarray(model.predict(rows))
        got = run_trees(ensemble, rows, dtype)["value"].reshape(expected.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        return
    got = run_trees(ensemble, rows, dtype, classes=np.asarray(model.classes_))
    assert np.ravel(model.predict(rows)).tolist() == got["label"].tolist()
    # XGBoost gives 1 - p as float32 has it: 6e-8 apart from one sum to the next.
    np.testing.assert_allclose(got["proba"], model.predict_proba(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", ["plain", "with_nan"])
@pytest.mark.parametrize("case", CASES)
def test_every_objective(case: str, rows: str, data: Machines) -> None:
    """Rows at, just below and just above thresholds turn as in the library, from either float."""
    make, target = CASES[case]
    trained = getattr(data, rows)
    model = make().fit(trained, _target(data, target))
    ensemble = ensemble_of(model)
    for dtype in (np.float32, np.float64):
        asked = trained if case.startswith("catboost") else np.concatenate([trained, data.with_nan])
        if dtype is np.float64 or not ensemble.float64:
            asked = at_the_splits(ensemble, asked)
        _check(model, ensemble, asked, dtype)


def test_lightgbm_categories(data: Machines) -> None:
    """A split on a set of categories turns as in LightGBM, for numbers that are none too."""
    model = lightgbm.LGBMRegressor(**L | {"min_data_per_group": 5, "cat_smooth": 1.0})
    rows = data.with_nan.copy()
    rows[:, 3] = np.nan_to_num(rows[:, 3])
    for trained in (rows, data.with_nan):
        model.fit(trained, data.value, categorical_feature=[3])
        strange = np.tile(rows[:8], (1, 1))
        strange[:, 3] = [-3, -0.5, 0.5, 2.7, 11.9, 40, 1e6, np.nan]
        asked = np.concatenate([trained, data.with_nan, strange])
        for dtype in (np.float32, np.float64):
            _check(model, ensemble_of(model), asked, dtype)


def test_early_stopping(data: Machines) -> None:
    """The rounds after the best one are left out, as the wrappers do."""
    late = (data.plain[400:], data.two[400:])
    boosted = xgboost.XGBClassifier(**X | {"n_estimators": 60}, early_stopping_rounds=2)
    boosted.fit(data.plain[:60], data.two[:60], eval_set=[late], verbose=False)
    assert boosted.best_iteration + 1 == len(ensemble_of(boosted).trees) < 60
    _check(boosted, ensemble_of(boosted), data.plain, np.float32)
    light = lightgbm.LGBMClassifier(**L | {"n_estimators": 200})
    stop = [lightgbm.early_stopping(2, verbose=False)]
    light.fit(data.plain[:60], data.two[:60], eval_X=late[0], eval_y=late[1], callbacks=stop)
    assert light.best_iteration_ == len(ensemble_of(light).trees) < 200
    _check(light, ensemble_of(light), data.plain, np.float32)


def test_a_threshold_of_its_own(data: Machines) -> None:
    """CatBoost's probability threshold decides the label."""
    model = catboost.CatBoostClassifier(**C).fit(data.plain, data.two)
    model.set_probability_threshold(0.3)
    _check(model, ensemble_of(model), data.plain, np.float32)
    assert (model.predict(data.plain) != (model.predict_proba(data.plain)[:, 1] > 0.5)).any()


def test_ranking(data: Machines) -> None:
    """A ranker's scores are the plain sums."""
    groups = np.repeat(np.arange(ROWS_GROUPS), len(data.four) // ROWS_GROUPS)
    ranker = xgboost.XGBRanker(**X).fit(data.plain, data.four, qid=groups)
    _check(ranker, ensemble_of(ranker), data.plain, np.float32)
    light = lightgbm.LGBMRanker(**L).fit(data.plain, data.four, group=np.bincount(groups))
    _check(light, ensemble_of(light), data.plain, np.float32)


ROWS_GROUPS = 20


def _own_objective(truth: Any, predicted: Any) -> tuple[Any, Any]:
    return predicted - truth, np.ones_like(truth)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xgboost.XGBRegressor(**X, booster="gblinear"), "not one of trees"),
        (lambda: lightgbm.LGBMRegressor(**L, linear_tree=True), "linear leaves"),
        (lambda: lightgbm.LGBMRegressor(**L, objective=_own_objective), "of the user's own"),
        (
            lambda: catboost.CatBoostRegressor(**C, loss_function="RMSEWithUncertainty"),
            "RMSEWithUncertainty",
        ),
    ],
)
def test_what_has_no_form(make: Any, message: str, data: Machines) -> None:
    """Models that trees and a link cannot say are refused in one line."""
    model = make().fit(data.plain, data.value)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        ensemble_of(model)
    assert "\n" not in str(caught.value)


def test_vector_leaves_are_refused(data: Machines) -> None:
    """XGBoost's trees with several outputs a leaf are refused in one line."""
    model = xgboost.XGBRegressor(**X, multi_strategy="multi_output_tree")
    model.fit(data.plain, _target(data, "both"))
    with pytest.raises(UnsupportedModelError, match="multi_output_tree"):
        ensemble_of(model)


def test_own_text_categories_are_refused(data: Machines) -> None:
    """Columns that a library encodes itself are refused with what to do instead."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data.plain, columns=list("abcde"))
    frame["d"] = pandas.Categorical([f"kind {int(value)}" for value in frame["d"]])
    models = [
        xgboost.XGBRegressor(**X, enable_categorical=True),
        lightgbm.LGBMRegressor(**L),
        catboost.CatBoostRegressor(**C, cat_features=["d"]),
    ]
    for model in models:
        with pytest.raises(UnsupportedModelError, match="scikit-learn pipeline before the model"):
            ensemble_of(model.fit(frame, data.value))


def test_thresholds_go_by_their_decimals() -> None:
    """A decimal at the threshold stays there as float32; a float32 above it stays above."""
    exact = np.array([40.2, 0.1, 298.15000000000003, -7.3, 1e-35, 0.0, 0.5])
    rounded = float32_thresholds(exact)
    assert np.float32 == rounded.dtype
    assert (np.float32(exact) <= rounded).all()
    assert 40.2 < float(rounded[0])
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    between = np.array([(float(low) + float(high)) / 2])
    assert low == float32_thresholds(between)[0]


def test_thresholds_never_move_further_than_one_step() -> None:
    """The rounded threshold is one of the two float32 next to the float64 one, or one below."""
    exact = np.random.default_rng(0).normal(size=2000) * 10.0 ** np.arange(-10, 10).repeat(100)
    rounded = float32_thresholds(exact)
    steps = np.abs(rounded.view(np.int32) - np.float32(exact).view(np.int32))
    assert 2 >= steps.max()


def _tree(**changed: Any) -> Tree:
    fields = {
        "feature": np.array([0, LEAF, LEAF]),
        "threshold": np.array([0.5, 0, 0]),
        "yes": np.array([1, 0, 0]),
        "no": np.array([2, 0, 0]),
        "missing_yes": np.array([True, False, False]),
        "value": np.array([[0.0], [1.0], [2.0]]),
        "target": 0,
    }
    return Tree(**fields | changed)


def _ensemble(*trees: Tree, **changed: Any) -> Ensemble:
    return Ensemble(
        **{"trees": trees, "base": np.zeros(1), "features": 2, "link": Link.NONE} | changed
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"feature": np.array([2, LEAF, LEAF])},
        {"feature": np.array([-2, LEAF, LEAF])},
        {"yes": np.array([3, 0, 0])},
        {"yes": np.array([0, 0, 0])},
        {"no": np.array([-1, 0, 0])},
        {"feature": np.array([0, 1, LEAF]), "yes": np.array([1, 1, 0]), "no": np.array([2, 2, 0])},
        {"target": 1},
        {"target": -1},
    ],
)
def test_trees_that_lead_nowhere(changed: dict[str, Any]) -> None:
    """A damaged tree is refused before anything follows it."""
    _ensemble(_tree()).check()
    with pytest.raises(ModelFileError, match="tree"):
        _ensemble(_tree(**changed)).check()


def test_a_model_without_trees() -> None:
    """An ensemble of no trees gives its base for every row."""
    answers = run_trees(_ensemble(base=np.array([2.5])), np.zeros((3, 2)), np.float32)
    assert [[2.5]] * 3 == answers["value"].tolist()


def test_nodes_that_nothing_leads_to() -> None:
    """Nodes that a library keeps without using them are left out."""
    tree = _tree(
        feature=np.array([0, LEAF, LEAF, LEAF]),
        threshold=np.array([0.5, 0, 0, 0]),
        yes=np.array([1, 0, 0, 0]),
        no=np.array([3, 0, 0, 0]),
        missing_yes=np.array([True, False, False, False]),
        value=np.array([[0.0], [1.0], [9.0], [2.0]]),
    )
    rows = np.array([[0.5, 0], [0.6, 0], [np.nan, 0]])
    answers = run_trees(_ensemble(tree), rows, np.float32)
    assert [[1.0], [2.0], [1.0]] == answers["value"].tolist()


def test_chains_of_comparisons() -> None:
    """A fork turns at each of its points, and NaN goes its own way."""
    for missing in (1, 2):
        fork = Fork(feature=0, points=((0.0, 1), (2.0, 2), (3.0, 1)), otherwise=2, missing=missing)
        tree = grow({0: fork}, {1: 10.0, 2: 20.0}, root=0, target=0)
        tree.check(1)
        rows = np.array([[-1.0], [0], [1], [2], [2.5], [4], [np.nan]])
        answers = run_trees(_ensemble(tree, features=1), rows, np.float32)["value"][:, 0]
        assert [10, 10, 20, 20, 10, 20, 10 * missing] == answers.tolist()
    assert [(0, 2), (7, 7)] == runs([7, 0, 1, 2])


@pytest.mark.parametrize("part", ["left_child", "threshold", "leaf_value", "num_leaves", "end of"])
def test_damaged_texts(part: str, data: Machines) -> None:
    """A LightGBM text that misses something is refused before the library reads it."""
    text = lightgbm.LGBMRegressor(**L).fit(data.plain, data.value).booster_.model_to_string()
    assert 12 == len(read_lightgbm(text).ensemble.trees)
    with pytest.raises(ModelFileError, match="LightGBM"):
        read_lightgbm(text.replace(part, "lost"))
    with pytest.raises(ModelFileError, match="truncated"):
        read_lightgbm(text[: len(text) // 3])
