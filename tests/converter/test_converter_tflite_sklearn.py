"""Files that the TFLite writer makes of scikit-learn's models, against scikit-learn itself."""

from typing import Any

import numpy as np
import pytest
from sklearn import datasets
from sklearn import linear_model as linear
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier, IsolationForest
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVR, OneClassSVM
from tflite_written import answers, exported, written

from edgepack.bundle.contract import Task
from edgepack.converter.errors import UnsupportedModelError

pytestmark = pytest.mark.filterwarnings("ignore")  # of fits that are cut short

REGRESSORS = [
    linear.ARDRegression(),
    linear.BayesianRidge(),
    linear.ElasticNet(),
    linear.GammaRegressor(),
    linear.HuberRegressor(),
    linear.Lars(),
    linear.Lasso(),
    linear.LassoLars(),
    linear.LinearRegression(),
    linear.OrthogonalMatchingPursuit(),
    linear.PoissonRegressor(),
    linear.QuantileRegressor(),
    linear.RANSACRegressor(random_state=0),
    linear.Ridge(),
    linear.SGDRegressor(random_state=0),
    linear.TheilSenRegressor(random_state=0),
    linear.TweedieRegressor(),
    LinearSVR(random_state=0),
    PLSRegression(),
    NuSVR(),
    *(SVR(kernel=kernel, degree=3) for kernel in ("linear", "poly", "rbf", "sigmoid")),
    *(
        make_pipeline(
            scaler, MLPRegressor(hidden_layer_sizes=(9, 5), activation=activation, random_state=0)
        )
        for scaler, activation in (
            (StandardScaler(), "relu"),
            (MinMaxScaler(), "tanh"),
            (RobustScaler(), "logistic"),
            (MaxAbsScaler(), "identity"),
        )
    ),
    make_pipeline(PolynomialFeatures(2), linear.Ridge()),
    make_pipeline(PowerTransformer(), PCA(4), linear.LinearRegression()),
    make_pipeline(make_union(PCA(2), SelectKBest(k=3)), linear.Ridge()),
    make_pipeline(SimpleImputer(), Normalizer(), linear.Ridge()),
]
CLASSIFIERS = [
    linear.LogisticRegression(max_iter=3000),
    linear.LogisticRegressionCV(max_iter=3000, cv=2, Cs=3, use_legacy_attributes=False),
    linear.Perceptron(),
    linear.RidgeClassifier(),
    linear.SGDClassifier(random_state=0),
    LinearSVC(random_state=0),
    SVC(),
    QuadraticDiscriminantAnalysis(reg_param=0.1),
    GaussianNB(),
    make_pipeline(Binarizer(), BernoulliNB()),
    CalibratedClassifierCV(LinearSVC(random_state=0), cv=2),
    MLPClassifier((12,), random_state=0, max_iter=300),
]
TRANSFORMERS = [
    Binarizer(threshold=1.5),
    IncrementalPCA(2),
    KernelPCA(2, kernel="linear"),
    MaxAbsScaler(),
    MinMaxScaler(),
    Normalizer("l1"),
    Normalizer("l2"),
    Normalizer("max"),
    PCA(3, whiten=True),
    PolynomialFeatures(2),
    PowerTransformer(),
    RobustScaler(),
    SelectKBest(k=2),
    SimpleImputer(),
    StandardScaler(),
    TruncatedSVD(2),
]


def _name(model: Any) -> str:
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    return "-".join(type(step).__name__ for step in steps)


@pytest.mark.parametrize("model", REGRESSORS, ids=_name)
def test_a_regressor_answers_as_in_sklearn(model: Any) -> None:
    """Every linear regressor, MLP and pipeline of scalers gives scikit-learn's values."""
    x, y = datasets.load_diabetes(return_X_y=True)
    x, y = x.astype(np.float32), y / 100
    model.fit(x, y)

    file = written(exported(model, 10, Task.REGRESSION, ["value"]), {"x": x})

    expected = model.predict(x.astype(np.float64))
    np.testing.assert_allclose(
        answers(file, {"x": x})["value"].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
@pytest.mark.parametrize("data", ["iris", "breast"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=_name)
def test_a_classifier_answers_as_in_sklearn(model: Any, data: str, *, text: bool) -> None:
    """Labels, numbers or text, of two classes or three, are derived of scores and all equal."""
    loaded = datasets.load_iris() if data == "iris" else datasets.load_breast_cancer()
    x = StandardScaler().fit_transform(loaded.data).astype(np.float32)
    y = np.array(loaded.target_names)[loaded.target] if text else loaded.target + 3
    model.fit(x, y)
    second = "probabilities" if hasattr(model, "predict_proba") else "scores"
    source = exported(model, x.shape[1], Task.CLASSIFICATION, ["label", second])

    file = written(source, {"x": x}, [str(name) for name in model.classes_])

    found = answers(file, {"x": x}, model.classes_)
    assert "argmax" == file.facts.outputs[0].derive
    assert model.predict(x).tolist() == found["label"].tolist()
    scores = model.predict_proba(x) if second == "probabilities" else model.decision_function(x)
    np.testing.assert_allclose(found[second].reshape(scores.shape), scores, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("model", TRANSFORMERS, ids=_name)
def test_a_transformer_answers_as_in_sklearn(model: Any) -> None:
    """Scalers, PCA and their like give scikit-learn's numbers."""
    x, y = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model.fit(x, y)

    file = written(exported(model, 4, Task.TRANSFORM, ["value"]), {"x": x})

    np.testing.assert_allclose(
        answers(file, {"x": x})["value"], model.transform(x), rtol=1e-4, atol=1e-4
    )


def test_a_missing_number_is_imputed() -> None:
    """NaN becomes what SimpleImputer learned, when the rows to check on hold none."""
    x, _ = datasets.load_iris(return_X_y=True)
    model = SimpleImputer().fit(x)
    file = written(exported(model, 4, Task.TRANSFORM, ["value"]), {})
    rows = np.array([[np.nan, 1, 2, 3], [4, 5, 6, np.nan]], dtype=np.float32)

    found = answers(file, {"x": rows})["value"]

    np.testing.assert_allclose(found, model.transform(rows), rtol=1e-6)


def test_a_clusterer_gives_integers() -> None:
    """The nearest centre is a tensor of the file: the smallest distance, not the largest score."""
    x, _ = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model = KMeans(3, n_init=1, random_state=0).fit(x)

    file = written(exported(model, 4, Task.CLUSTERING, ["label"]), {"x": x})

    assert file.facts.outputs[0].derive is None
    assert model.predict(x).tolist() == answers(file, {"x": x})["label"].tolist()


@pytest.mark.parametrize(
    "model",
    [
        linear.SGDOneClassSVM(random_state=0, nu=0.3),
        OneClassSVM(nu=0.2),
        IsolationForest(n_estimators=10, max_samples=32, contamination=0.2, random_state=0),
    ],
    ids=_name,
)
def test_an_outlier_detector_gives_its_signs(model: Any) -> None:
    """-1 and 1 are computed as integers in the file."""
    x, _ = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model.fit(x)

    file = written(exported(model, 4, Task.OUTLIER, ["label", "scores"]), {"x": x})

    found = answers(file, {"x": x})
    assert model.predict(x).tolist() == found["label"].reshape(-1).tolist()
    assert {-1, 1} == set(found["label"].reshape(-1).tolist())


def test_the_batch_is_free_and_the_bytes_are_the_same() -> None:
    """One file takes any number of rows, and a second writing gives the same bytes."""
    x, y = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), random_state=0)).fit(x, y)
    source = exported(model, 4, Task.CLASSIFICATION, ["label", "probabilities"])

    file = written(source, {"x": x})

    assert file.data == written(source, {"x": x}).data
    assert b"TFL3" == file.data[4:8]
    assert file.facts.inputs[0].batch is None
    for rows in (1, 7, 150):
        found = answers(file, {"x": x[:rows]}, model.classes_)["probabilities"]
        np.testing.assert_allclose(found, model.predict_proba(x[:rows]), atol=1e-5)


def test_a_text_label_of_a_sign_is_derived() -> None:
    """A label that the export makes of `score > 0` needs no text in the file either."""
    loaded = datasets.load_breast_cancer()
    x = loaded.data.astype(np.float32)
    model = AdaBoostClassifier(n_estimators=8, random_state=0)
    model.fit(x, np.array(loaded.target_names)[loaded.target])

    file = written(exported(model, 30, Task.CLASSIFICATION, ["label", "probabilities"]), {"x": x})

    found = answers(file, {"x": x}, model.classes_)
    assert model.predict(x).tolist() == found["label"].tolist()


def test_other_class_names_than_the_models_are_refused() -> None:
    """A derived label can only be what the contract's class names say."""
    x, y = datasets.load_iris(return_X_y=True)
    model = linear.LogisticRegression(max_iter=500).fit(x, y + 5)
    source = exported(model, 4, Task.CLASSIFICATION, ["label", "probabilities"])

    with pytest.raises(UnsupportedModelError, match="classes must be the contract's"):
        written(source, {"x": x.astype(np.float32)}, ["7", "6", "5"])
