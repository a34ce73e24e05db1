"""Boosted models inside other estimators: what holds one converts too."""

from typing import Any

import numpy as np
import pytest
from gbm_models import Machines, machines
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingClassifier,
    GradientBoostingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    OneHotEncoder,
    StandardScaler,
)

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.converter.sources.source import ExportWish

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
catboost = pytest.importorskip("catboost")
onnxruntime = pytest.importorskip("onnxruntime")


def _xgb(kind: str) -> Any:
    return getattr(xgboost, f"XGB{kind}")(n_estimators=6, n_jobs=1)


def _lgb(kind: str) -> Any:
    return getattr(lightgbm, f"LGBM{kind}")(n_estimators=6, n_jobs=1, verbose=-1)


def _cat(kind: str) -> Any:
    return getattr(catboost, f"CatBoost{kind}")(
        n_estimators=6, thread_count=1, verbose=0, allow_writing_files=False
    )


def _all(kind: str) -> list[tuple[str, Any]]:
    return [("x", _xgb(kind)), ("l", _lgb(kind)), ("c", _cat(kind))]


C, R = "Classifier", "Regressor"
HOLDERS = {
    "soft votes": (lambda: VotingClassifier(_all(C), voting="soft"), "two"),
    "hard votes": (lambda: VotingClassifier(_all(C)), "two"),
    "mean": (lambda: VotingRegressor(_all(R)), "value"),
    "stacked classes": (lambda: StackingClassifier(_all(C), LogisticRegression(), cv=2), "two"),
    "stacked values": (lambda: StackingRegressor(_all(R), LinearRegression(), cv=2), "value"),
    "calibrated": (lambda: CalibratedClassifierCV(_lgb(C), cv=2), "four"),
    "calibrated by steps": (
        lambda: CalibratedClassifierCV(_xgb(C), method="isotonic", cv=2),
        "two",
    ),
    "bagged": (lambda: BaggingClassifier(_lgb(C), 2), "two"),
    "boosted again": (lambda: AdaBoostRegressor(_lgb(R), n_estimators=2), "value"),
    "one against all": (lambda: OneVsRestClassifier(_lgb(C)), "four"),
    "several targets": (lambda: MultiOutputRegressor(_xgb(R)), "both"),
    "transformed target": (
        lambda: TransformedTargetRegressor(_cat(R), func=np.log, inverse_func=np.exp),
        "count",
    ),
    "searched": (lambda: GridSearchCV(_lgb(C), {"num_leaves": [4, 7]}, cv=2), "two"),
    "imputed and scaled": (
        lambda: make_pipeline(SimpleImputer(), StandardScaler(), _cat(C)),
        "four",
    ),
    "selecting columns": (
        lambda: make_pipeline(SelectFromModel(_xgb(R)), LinearRegression()),
        "value",
    ),
}


@pytest.fixture(scope="module")
def data() -> Machines:
    """The rows and targets of every case."""
    return machines()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("case", HOLDERS)
def test_holders(case: str, precision: str, data: Machines) -> None:
    """The whole answers as in scikit-learn, in either float."""
    from edgepack.converter.sklearn_model.estimator import SklearnModel

    make, target = HOLDERS[case]
    both = np.stack([data.value, data.count], 1)
    fitted = make().fit(data.plain, both if target == "both" else getattr(data, target))
    model = SklearnModel(fitted)
    task = model.facts.task
    assert task is not None
    expected = model.run(task, {"x": data.plain})
    expected.pop("scores", None)
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 5))
    exported = model.export(
        ExportWish(task=task, inputs=(spec,), outputs=tuple(expected), precision=precision)
    )
    session = onnxruntime.InferenceSession(exported.data)
    rows = data.plain.astype(np.float64 if precision == "fp64" else np.float32)
    answers = session.run([item.tensor for item in exported.facts.outputs], {"x": rows})
    for (name, array), answer in zip(expected.items(), answers, strict=True):
        if name == "label":
            assert array.tolist() == answer.tolist()
        else:
            np.testing.assert_allclose(answer.reshape(array.shape), array, rtol=1e-4, atol=1e-6)


SPARSE = {
    "encoder": lambda: OneHotEncoder(handle_unknown="ignore"),
    "columns, sparse": lambda: _columns(1.0),
    "columns, dense": lambda: _columns(0.0),
    "encoder, then scaler": lambda: make_pipeline(OneHotEncoder(), MaxAbsScaler()),
    "encoder of dense": lambda: OneHotEncoder(sparse_output=False),
    "bins": lambda: KBinsDiscretizer(4, encode="onehot"),
    "union": lambda: FeatureUnion([("a", OneHotEncoder()), ("b", MaxAbsScaler())]),
}


def _columns(threshold: float) -> ColumnTransformer:
    return ColumnTransformer(
        [("some", OneHotEncoder(), [0, 1, 2]), ("other", "passthrough", [3])],
        sparse_threshold=threshold,
    )


@pytest.mark.parametrize("booster", ["xgboost", "xgboost in votes", "lightgbm", "catboost"])
@pytest.mark.parametrize("step", SPARSE)
def test_sparse_matrices(step: str, booster: str) -> None:
    """What a sparse matrix does not store is missing for XGBoost, and 0 for the others."""
    from edgepack.converter.sklearn_model.estimator import SklearnModel

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 9, size=(400, 4)).astype(float)
    labels = ((rows[:, 0] * 7 + rows[:, 1] * 3) % 5 > 2).astype(int)
    make = {
        "xgboost": lambda: _xgb(C),
        "xgboost in votes": lambda: VotingClassifier([("x", _xgb(C))], voting="soft"),
        "lightgbm": lambda: _lgb(C),
        "catboost": lambda: _cat(C),
    }
    model = SklearnModel(make_pipeline(SPARSE[step](), make[booster]()).fit(rows, labels))
    assert model.facts.task is not None
    expected = model.run(model.facts.task, {"x": rows})
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4))
    outputs = ("label", "probabilities")
    exported = model.export(
        ExportWish(task=model.facts.task, inputs=(spec,), outputs=outputs, precision="fp32")
    )
    session = onnxruntime.InferenceSession(exported.data)
    tensors = [item.tensor for item in exported.facts.outputs]
    label, probabilities = session.run(tensors, {"x": rows.astype(np.float32)})
    assert expected["label"].tolist() == label.tolist()
    np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=1e-4, atol=1e-6)


def test_other_ensembles_are_left_alone(data: Machines) -> None:
    """An ensemble whose members are a matrix of trees loads and exports as ever."""
    from edgepack.converter.gbm_model.sparse import zeros_are_missing
    from edgepack.converter.gbm_model.wrappers import restore_counts

    boosted = GradientBoostingRegressor(n_estimators=2).fit(data.plain, data.value)
    zeros_are_missing(boosted, given_sparse=True)
    restore_counts(make_pipeline(boosted))
    assert 5 == boosted.n_features_in_
