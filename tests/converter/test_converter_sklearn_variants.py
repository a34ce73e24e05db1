"""Estimators with other than their default settings, against themselves in both precisions."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coverage_models import Fitted, Rows
from coverage_walk import walk_one
from sklearn import (
    calibration,
    cluster,
    compose,
    datasets,
    decomposition,
    dummy,
    ensemble,
    gaussian_process,
    impute,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    mixture,
    multiclass,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (makes it importable)
from sklearn.gaussian_process import kernels as gp

Table = Callable[[], Rows]
_WINE = datasets.load_wine()
_DIABETES = datasets.load_diabetes()


def _wine(*, text: bool = False) -> Rows:
    """Three classes, four columns of other scales."""
    order = np.random.default_rng(0).permutation(len(_WINE.data))
    data, target = _WINE.data[order, 6:10], _WINE.target[order]
    names = np.array(["low", "middle", "high"], dtype=object)
    return Rows(data[:110], names[target][:110] if text else target[:110], data[110:])


def _text() -> Rows:
    return _wine(text=True)


def _two() -> Rows:
    rows = _wine()
    return Rows(rows.train, (rows.target > 0).astype(int), rows.check)


def _numbers() -> Rows:
    data = _DIABETES.data[:, :5]
    return Rows(data[:150], _DIABETES.target[:150], data[150:210])


def _gaps() -> Rows:
    rows = _wine()
    random = np.random.default_rng(1)
    # Of neighbours at the very same distance scikit-learn takes any: the noise lets none be so.
    train = rows.train + random.normal(0, 0.01, rows.train.shape)
    check = rows.check + random.normal(0, 0.01, rows.check.shape)
    train[random.random(train.shape) < 0.15] = np.nan
    check[random.random(check.shape) < 0.25] = np.nan
    return Rows(train, rows.target, check)


def _whole() -> Rows:
    """Small whole numbers, some of them never seen in the fit."""
    random = np.random.default_rng(2)
    train = random.integers(0, 9, (150, 3)).astype(np.float64)
    check = random.integers(0, 12, (60, 3)).astype(np.float64)
    check[::7, 1] = np.nan
    train[::11, 1] = np.nan
    return Rows(train, (train[:, 0] % 3 + np.nan_to_num(train[:, 2]) > 5).astype(int), check)


def _between() -> Rows:
    """Rows beyond the training data too."""
    rows = _wine()
    spread = (rows.check - rows.train.mean(axis=0)) * 2.5 + rows.train.mean(axis=0)
    ends = np.stack([rows.train.min(axis=0), rows.train.max(axis=0)])
    return Rows(rows.train, rows.target, np.concatenate([rows.check, spread, ends]))


def _log() -> linear_model.LogisticRegression:
    return linear_model.LogisticRegression(max_iter=500)


_TREE = tree.DecisionTreeClassifier(max_depth=4, random_state=0)
CASES: list[tuple[str, Any, Table]] = [
    ("svc-3-text", svm.SVC(), _text),
    ("svc-ovo", svm.SVC(decision_function_shape="ovo", kernel="poly", degree=2), _wine),
    ("svc-ties", svm.SVC(break_ties=True, kernel="linear"), _wine),
    ("svc-sigmoid-2", svm.SVC(kernel="sigmoid", gamma=0.01, coef0=0.5), _two),
    ("svc-probable-2", svm.SVC(probability=True, random_state=0), _two),
    ("svc-probable-3", svm.SVC(probability=True, random_state=0), _text),
    ("nusvc-3", svm.NuSVC(nu=0.3), _wine),
    ("one-class-poly", svm.OneClassSVM(kernel="poly", gamma=0.01), _wine),
    ("lda-text", LinearDiscriminantAnalysis(), _text),
    ("lda-2-lsqr", LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), _two),
    ("lda-in-pipeline", pipeline.make_pipeline(LinearDiscriminantAnalysis(), _log()), _wine),
    (
        "kmeans-in-pipeline",
        pipeline.make_pipeline(cluster.KMeans(5, n_init=1, random_state=0), _log()),
        _text,
    ),
    (
        "bisecting-centres",
        cluster.BisectingKMeans(6, random_state=0),
        _wine,
    ),
    ("birch-in-2", cluster.Birch(threshold=20.0, n_clusters=None), _wine),
    ("centroid-priors", neighbors.NearestCentroid(priors="empirical"), _text),
    ("centroid-manhattan", neighbors.NearestCentroid(metric="manhattan"), _wine),
    ("neighbours-weighted", neighbors.KNeighborsClassifier(7, weights="distance"), _text),
    ("neighbours-minkowski", neighbors.KNeighborsClassifier(3, p=3), _wine),
    ("neighbours-manhattan", neighbors.KNeighborsRegressor(4, metric="manhattan"), _numbers),
    (
        "radius-weighted",
        neighbors.RadiusNeighborsRegressor(0.15, weights="distance"),
        _numbers,
    ),
    ("radius-text", neighbors.RadiusNeighborsClassifier(60.0, outlier_label="low"), _text),
    ("outlier-factor", neighbors.LocalOutlierFactor(11, novelty=True, metric="l1"), _wine),
    ("spread-knn", semi_supervised.LabelSpreading(kernel="knn"), _wine),
    ("ridge-rbf", kernel_ridge.KernelRidge(kernel="rbf", gamma=2.0), _numbers),
    ("ridge-laplacian", kernel_ridge.KernelRidge(kernel="laplacian"), _numbers),
    ("ridge-poly", kernel_ridge.KernelRidge(kernel="poly", degree=2, coef0=2), _numbers),
    ("nystroem-chi2", kernel_approximation.Nystroem(kernel="chi2", n_components=9), _wine),
    ("nystroem-cosine", kernel_approximation.Nystroem(kernel="cosine", n_components=9), _wine),
    (
        "sketch-coef0",
        kernel_approximation.PolynomialCountSketch(gamma=0.01, degree=3, coef0=2, random_state=0),
        _wine,
    ),
    ("chi2-3-steps", kernel_approximation.AdditiveChi2Sampler(sample_steps=3), _wine),
    ("kernel-pca-poly", decomposition.KernelPCA(n_components=2, kernel="poly", gamma=1e-3), _wine),
    ("boosting-3-text", ensemble.GradientBoostingClassifier(n_estimators=5), _text),
    ("boosting-exp", ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential"), _two),
    ("boosting-zero", ensemble.GradientBoostingRegressor(n_estimators=5, init="zero"), _numbers),
    (
        "boosting-linear-start",
        ensemble.GradientBoostingRegressor(n_estimators=5, init=linear_model.LinearRegression()),
        _numbers,
    ),
    ("forest-text", ensemble.RandomForestClassifier(n_estimators=9, random_state=0), _text),
    ("forest-gaps", ensemble.RandomForestClassifier(n_estimators=9, random_state=0), _gaps),
    ("tree-one-leaf", tree.DecisionTreeClassifier(max_depth=1, min_samples_leaf=80), _wine),
    (
        "isolation-part",
        ensemble.IsolationForest(n_estimators=9, max_features=0.5, random_state=0),
        _wine,
    ),
    ("hist-3-text", ensemble.HistGradientBoostingClassifier(max_iter=5), _text),
    ("hist-gaps", ensemble.HistGradientBoostingClassifier(max_iter=5), _gaps),
    (
        "hist-categories",
        ensemble.HistGradientBoostingClassifier(max_iter=9, categorical_features=[0, 1]),
        _whole,
    ),
    (
        "hist-last-category",
        ensemble.HistGradientBoostingClassifier(max_iter=9, categorical_features=[2]),
        _whole,
    ),
    (
        "hist-poisson",
        ensemble.HistGradientBoostingRegressor(max_iter=9, loss="poisson"),
        _numbers,
    ),
    ("hist-absolute", ensemble.HistGradientBoostingRegressor(max_iter=9, loss="gamma"), _numbers),
    ("adaboost-3-text", ensemble.AdaBoostClassifier(n_estimators=6, random_state=0), _text),
    (
        "bagging-votes",
        ensemble.BaggingClassifier(svm.LinearSVC(), n_estimators=4, random_state=0),
        _text,
    ),
    (
        "bagging-columns",
        ensemble.BaggingClassifier(_TREE, n_estimators=5, max_features=0.5, random_state=0),
        _wine,
    ),
    (
        "voting-hard-text",
        ensemble.VotingClassifier([("a", naive_bayes.GaussianNB()), ("b", _TREE), ("c", _log())]),
        _text,
    ),
    (
        "voting-weights",
        ensemble.VotingClassifier(
            [("a", naive_bayes.GaussianNB()), ("b", _TREE)], voting="soft", weights=[1, 3]
        ),
        _text,
    ),
    (
        "stacking-3-text",
        ensemble.StackingClassifier([("a", svm.LinearSVC()), ("b", _TREE)], cv=2),
        _text,
    ),
    (
        "stacking-passthrough",
        ensemble.StackingClassifier([("a", _log())], final_estimator=_TREE, passthrough=True, cv=2),
        _two,
    ),
    ("calibrated-isotonic", calibration.CalibratedClassifierCV(_log(), method="isotonic"), _text),
    ("calibrated-trees", calibration.CalibratedClassifierCV(_TREE, cv=2), _text),
    (
        "calibrated-temperature",
        calibration.CalibratedClassifierCV(_log(), method="temperature", cv=2),
        _text,
    ),
    ("calibrated-svm-2", calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), _two),
    ("one-vs-one-text", multiclass.OneVsOneClassifier(svm.SVC()), _text),
    ("one-vs-rest-trees", multiclass.OneVsRestClassifier(_TREE), _text),
    ("code-text", multiclass.OutputCodeClassifier(_TREE, random_state=0), _text),
    ("dummy-text", dummy.DummyClassifier(strategy="constant", constant="high"), _text),
    ("dummy-median", dummy.DummyRegressor(strategy="median"), _numbers),
    (
        "gpc-3",
        gaussian_process.GaussianProcessClassifier(gp.RBF(2.0), optimizer=None),
        _text,
    ),
    (
        "gpr-matern",
        gaussian_process.GaussianProcessRegressor(
            gp.ConstantKernel(2.0) * gp.Matern([1.0] * 5, nu=1.5) + gp.WhiteKernel(1.0),
            optimizer=None,
            normalize_y=True,
        ),
        _numbers,
    ),
    (
        "mixture-tied",
        mixture.GaussianMixture(n_components=3, covariance_type="tied", random_state=0),
        _wine,
    ),
    (
        "mixture-diag",
        mixture.BayesianGaussianMixture(n_components=3, covariance_type="diag"),
        _wine,
    ),
    (
        "mixture-spherical",
        mixture.GaussianMixture(n_components=2, covariance_type="spherical"),
        _wine,
    ),
    ("spline-linear", preprocessing.SplineTransformer(extrapolation="linear"), _between),
    (
        "spline-continue",
        preprocessing.SplineTransformer(extrapolation="continue", degree=2),
        _between,
    ),
    (
        "spline-periodic",
        preprocessing.SplineTransformer(extrapolation="periodic", include_bias=False),
        _between,
    ),
    (
        "spline-quantiles",
        preprocessing.SplineTransformer(knots="quantile", n_knots=4, degree=1),
        _between,
    ),
    ("bins-ordinal", preprocessing.KBinsDiscretizer(encode="ordinal"), _between),
    (
        "bins-kmeans",
        preprocessing.KBinsDiscretizer(n_bins=3, encode="onehot-dense", strategy="kmeans"),
        _between,
    ),
    (
        "quantile-normal",
        preprocessing.QuantileTransformer(n_quantiles=30, output_distribution="normal"),
        _between,
    ),
    ("quantile-repeats", preprocessing.QuantileTransformer(n_quantiles=60), _whole),
    ("power-box-cox", preprocessing.PowerTransformer(method="box-cox"), _wine),
    ("power-plain", preprocessing.PowerTransformer(standardize=False), _numbers),
    ("polynomial-3", preprocessing.PolynomialFeatures(degree=3, interaction_only=True), _wine),
    ("target-unknown", preprocessing.TargetEncoder(target_type="binary"), _whole),
    ("neighbours-fill", impute.KNNImputer(n_neighbors=3, weights="distance"), _gaps),
    ("neighbours-fill-marks", impute.KNNImputer(add_indicator=True), _gaps),
    ("iterated-fill", impute.IterativeImputer(max_iter=3, random_state=0), _gaps),
    ("mean-fill-marks", impute.SimpleImputer(add_indicator=True), _gaps),
    (
        "target-powers",
        compose.TransformedTargetRegressor(
            linear_model.Ridge(), transformer=preprocessing.PowerTransformer()
        ),
        _numbers,
    ),
    (
        "target-scaled",
        compose.TransformedTargetRegressor(
            linear_model.Ridge(), transformer=preprocessing.StandardScaler()
        ),
        _numbers,
    ),
    (
        "huber-chain",
        pipeline.make_pipeline(preprocessing.FunctionTransformer(np.sqrt), _log()),
        _wine,
    ),
    ("discretised", pipeline.make_pipeline(preprocessing.KBinsDiscretizer(), _log()), _wine),
    ("liblinear", linear_model.LogisticRegression(solver="liblinear"), _two),
]


@pytest.mark.parametrize(
    ("model", "table"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_variant(model: Any, table: Table) -> None:
    """It converts, and one precision at least answers as the original does."""
    rows = table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows.train, rows.target)
    entry = walk_one(Fitted(type(model).__name__, model, rows))
    if getattr(model, "probability", False):
        assert entry.fp32.difference is not None, entry.fp32.reason
        return  # skl2onnx's operator couples the pairs' probabilities, in float32
    assert entry.fp64.difference is not None, entry.fp64.reason
    assert entry.fp64.difference < 1e-6
