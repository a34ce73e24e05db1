"""One small fitted model of every estimator that scikit-learn lists."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import base, datasets
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.experimental import (  # noqa: F401  (they are listed only once these are imported)
    enable_halving_search_cv,
    enable_iterative_imputer,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

Array = np.ndarray[Any, Any]
_TRAIN_ROWS = 160
_CHECK_ROWS = 60


@dataclass(frozen=True)
class Rows:
    """Rows to fit on and rows that the fit never saw."""

    train: Array
    target: Array
    check: Array


@dataclass(frozen=True)
class Fitted:
    """A model and its held-out rows, or why it could not be fitted on a numeric table."""

    name: str
    model: Any
    rows: Rows | None
    reason: str = ""


def _logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=300)


# How an estimator is made where its defaults need another estimator or take long.
_MAKE: dict[str, Callable[[type[Any]], Any]] = {
    "AdaBoostClassifier": lambda kind: kind(n_estimators=8, random_state=0),
    "AdaBoostRegressor": lambda kind: kind(n_estimators=8, random_state=0),
    "BaggingClassifier": lambda kind: kind(n_estimators=4, random_state=0),
    "BaggingRegressor": lambda kind: kind(n_estimators=4, max_features=0.7, random_state=0),
    "BernoulliRBM": lambda kind: kind(n_components=6, n_iter=3, random_state=0),
    "CalibratedClassifierCV": lambda kind: kind(GaussianNB(), cv=3),
    "ClassifierChain": lambda kind: kind(_logistic(), order="random", random_state=0),
    "ColumnTransformer": lambda kind: kind(
        [("scaled", StandardScaler(), [0, 3]), ("raw", "passthrough", [1, 2])]
    ),
    "ExtraTreesClassifier": lambda kind: kind(n_estimators=8, max_depth=6, random_state=0),
    "ExtraTreesRegressor": lambda kind: kind(n_estimators=8, max_depth=6, random_state=0),
    "FeatureUnion": lambda kind: kind([("pca", PCA(2)), ("scaled", StandardScaler())]),
    "FixedThresholdClassifier": lambda kind: kind(_logistic(), threshold=0.3),
    "FrozenEstimator": lambda kind: kind(PCA(3)),
    "FunctionTransformer": lambda kind: kind(np.log1p),
    "GenericUnivariateSelect": lambda kind: kind(mode="k_best", param=3),
    "GradientBoostingClassifier": lambda kind: kind(n_estimators=8, random_state=0),
    "GradientBoostingRegressor": lambda kind: kind(n_estimators=8, random_state=0),
    "GridSearchCV": lambda kind: kind(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
    "HalvingGridSearchCV": lambda kind: kind(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
    "HalvingRandomSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, cv=2),
    "HistGradientBoostingClassifier": lambda kind: kind(max_iter=8, random_state=0),
    "HistGradientBoostingRegressor": lambda kind: kind(max_iter=8, random_state=0),
    "IsolationForest": lambda kind: kind(n_estimators=12, random_state=0),
    "LatentDirichletAllocation": lambda kind: kind(n_components=3, max_iter=2, random_state=0),
    "LogisticRegression": lambda kind: kind(max_iter=300),
    "LogisticRegressionCV": lambda kind: kind(Cs=2, cv=2, max_iter=200),
    "LocalOutlierFactor": lambda kind: kind(novelty=True),
    "QuadraticDiscriminantAnalysis": lambda kind: kind(reg_param=0.1),
    "PLSSVD": lambda kind: kind(1),
    "DictionaryLearning": lambda kind: kind(
        n_components=5, max_iter=3, transform_algorithm="threshold", random_state=0
    ),
    "MDS": lambda kind: kind(n_init=1, max_iter=5),
    "MLPClassifier": lambda kind: kind((8,), max_iter=40, random_state=0),
    "MLPRegressor": lambda kind: kind(hidden_layer_sizes=(8,), max_iter=40, random_state=0),
    "MiniBatchDictionaryLearning": lambda kind: kind(
        n_components=5, max_iter=2, transform_algorithm="threshold", random_state=0
    ),
    "MiniBatchSparsePCA": lambda kind: kind(n_components=4, max_iter=3, random_state=0),
    "MultiOutputClassifier": lambda kind: kind(_logistic()),
    "MultiOutputRegressor": lambda kind: kind(Ridge()),
    "NMF": lambda kind: kind(n_components=3, max_iter=30, random_state=0),
    "MiniBatchNMF": lambda kind: kind(n_components=3, max_iter=5, random_state=0),
    "NeighborhoodComponentsAnalysis": lambda kind: kind(3, max_iter=5, random_state=0),
    "Nystroem": lambda kind: kind(n_components=12, gamma=0.01, random_state=0),
    "OneVsOneClassifier": lambda kind: kind(LinearSVC(random_state=0)),
    "OneVsRestClassifier": lambda kind: kind(_logistic()),
    "OutputCodeClassifier": lambda kind: kind(_logistic(), random_state=0),
    "PassiveAggressiveClassifier": lambda kind: kind(random_state=0),
    "PassiveAggressiveRegressor": lambda kind: kind(random_state=0),
    "Pipeline": lambda kind: kind([("scale", StandardScaler()), ("model", _logistic())]),
    "PolynomialCountSketch": lambda kind: kind(n_components=12, random_state=0),
    "QuantileTransformer": lambda kind: kind(n_quantiles=40),
    "RANSACRegressor": lambda kind: kind(LinearRegression(), random_state=0),
    "RBFSampler": lambda kind: kind(n_components=12, gamma=0.01, random_state=0),
    "RFE": lambda kind: kind(DecisionTreeClassifier(random_state=0), n_features_to_select=3),
    "RFECV": lambda kind: kind(DecisionTreeClassifier(random_state=0), cv=2),
    "RadiusNeighborsClassifier": lambda kind: kind(radius=400.0, outlier_label="most_frequent"),
    "RadiusNeighborsRegressor": lambda kind: kind(radius=0.2),
    "RadiusNeighborsTransformer": lambda kind: kind(radius=400.0),
    "RandomForestClassifier": lambda kind: kind(n_estimators=8, random_state=0),
    "RandomForestRegressor": lambda kind: kind(n_estimators=8, random_state=0),
    "RandomTreesEmbedding": lambda kind: kind(n_estimators=4, max_depth=3, random_state=0),
    "RandomizedSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, n_iter=2, cv=2),
    "RegressorChain": lambda kind: kind(Ridge(), order=[1, 0]),
    "SelectFromModel": lambda kind: kind(RandomForestClassifier(5, random_state=0)),
    "SelfTrainingClassifier": lambda kind: kind(GaussianNB()),
    "SequentialFeatureSelector": lambda kind: kind(GaussianNB(), n_features_to_select=2, cv=2),
    "SparseCoder": lambda kind: kind(np.eye(8)[:4], transform_algorithm="threshold"),
    "SparsePCA": lambda kind: kind(n_components=3, max_iter=5, random_state=0),
    "SparseRandomProjection": lambda kind: kind(n_components=4, random_state=0),
    "GaussianRandomProjection": lambda kind: kind(n_components=4, random_state=0),
    "SelectKBest": lambda kind: kind(k=3),
    "StackingClassifier": lambda kind: kind(
        [("nb", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))], cv=2
    ),
    "StackingRegressor": lambda kind: kind(
        [("ridge", Ridge()), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))], cv=2
    ),
    "TSNE": lambda kind: kind(max_iter=250, perplexity=5),
    "TargetEncoder": lambda kind: kind(target_type="binary"),
    "TheilSenRegressor": lambda kind: kind(max_subpopulation=60, random_state=0),
    "TransformedTargetRegressor": lambda kind: kind(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "TunedThresholdClassifierCV": lambda kind: kind(_logistic(), cv=3),
    "VotingClassifier": lambda kind: kind(
        [("nb", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))],
        voting="soft",
    ),
    "VotingRegressor": lambda kind: kind(
        [("ridge", Ridge()), ("hist", HistGradientBoostingRegressor(max_iter=4, random_state=0))]
    ),
}
_TWO_TARGETS = frozenset(
    {
        "MultiOutputRegressor",
        "MultiTaskElasticNet",
        "MultiTaskElasticNetCV",
        "MultiTaskLasso",
        "MultiTaskLassoCV",
        "RegressorChain",
        "CCA",
        "PLSCanonical",
    }
)
_TWO_LABELS = frozenset({"ClassifierChain", "MultiOutputClassifier"})
_SMALL_WHOLE = frozenset({"CategoricalNB", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
_UNIT_ROWS = frozenset({"BernoulliRBM", "HDBSCAN", "MeanShift", "Isomap"})
_WITH_GAPS = frozenset({"KNNImputer", "MissingIndicator", "SimpleImputer"})


def every_model() -> Iterator[Fitted]:
    """Fit each estimator that `all_estimators` lists, in its order."""
    breast, diabetes = _table(datasets.load_breast_cancer()), _table(datasets.load_diabetes())
    for name, kind in all_estimators():
        yield _fit(name, kind, breast, diabetes)


def _table(loaded: Any) -> Rows:
    data, target = loaded.data[:, :8], loaded.target
    end = _TRAIN_ROWS + _CHECK_ROWS
    return Rows(data[:_TRAIN_ROWS], target[:_TRAIN_ROWS], data[_TRAIN_ROWS:end])


def _fit(name: str, kind: type[Any], breast: Rows, diabetes: Rows) -> Fitted:
    try:
        model = _MAKE.get(name, lambda kind: kind())(kind)
        if "random_state" in model.get_params(deep=False) and model.random_state is None:
            model.set_params(random_state=0)
    except (TypeError, ValueError) as exc:
        return Fitted(name, None, None, _line(exc))
    rows = _rows(name, model, breast, diabetes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "FrozenEstimator":
                model.estimator.fit(rows.train)
            model.fit(rows.train, rows.target)
    except (TypeError, ValueError, AttributeError, FloatingPointError) as exc:
        return Fitted(name, None, None, _line(exc))
    return Fitted(name, model, rows)


def _rows(name: str, model: Any, breast: Rows, diabetes: Rows) -> Rows:
    if name == "IsotonicRegression":
        return Rows(diabetes.train[:, 2:3], diabetes.target, diabetes.check[:, 2:3])
    if name in _TWO_TARGETS:
        both = np.column_stack([diabetes.target, diabetes.train[:, 0] * 100 + 20])
        return Rows(diabetes.train, both, diabetes.check)
    if base.is_regressor(model):
        return diabetes
    rows = breast
    if name in _TWO_LABELS:
        other = (rows.train[:, 0] > np.median(rows.train[:, 0])).astype(int)
        return Rows(rows.train, np.column_stack([rows.target, other]), rows.check)
    if name in _SMALL_WHOLE:
        edges = np.quantile(rows.train, [0.2, 0.4, 0.6, 0.8], axis=0)
        return Rows(_steps(rows.train, edges), rows.target, _steps(rows.check, edges))
    if name in _UNIT_ROWS:
        scaler = MinMaxScaler(clip=True).fit(rows.train)
        return Rows(scaler.transform(rows.train), rows.target, scaler.transform(rows.check))
    if name in _WITH_GAPS:
        return Rows(_gaps(rows.train), rows.target, _gaps(rows.check))
    if name == "KernelCenterer":
        kernel = rows.train @ rows.train.T
        return Rows(kernel, rows.target, rows.check @ rows.train.T)
    return rows


def _steps(values: Array, edges: Array) -> Array:
    columns = [np.searchsorted(edges[:, i], values[:, i]) for i in range(values.shape[1])]
    return np.column_stack(columns).astype(np.float64)


def _gaps(values: Array) -> Array:
    gaps = values.copy()
    gaps[np.random.default_rng(0).random(gaps.shape) < 0.1] = np.nan
    return gaps


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:120]
