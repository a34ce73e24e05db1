"""The list of names holds what the installed scikit-learn pickles to."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converter_models import save
from sklearn import ensemble, linear_model, neighbors, preprocessing, svm
from sklearn.datasets import load_iris
from sklearn.utils import all_estimators

from edgepack.converter.sources.unpickle import allowed_names, load_pickle

FORBIDDEN_MODULES = (
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "importlib",
    "shutil",
    "socket",
    "io",
)
FORBIDDEN = {
    ("numpy", "memmap"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy.core", "_ufunc_reconstruct"),
    ("builtins", "getattr"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "open"),
    ("builtins", "type"),
    ("builtins", "__import__"),
}


def test_every_public_estimator_is_on_the_list() -> None:
    """An estimator that scikit-learn lists can be loaded."""
    wanted = {(estimator.__module__, estimator.__name__) for _, estimator in all_estimators()}
    assert set() == wanted - allowed_names()


def test_nothing_dangerous_is_on_the_list() -> None:
    """No module of the operating system, and none of the known ways out."""
    assert set() == FORBIDDEN & allowed_names()
    assert not [pair for pair in allowed_names() if pair[0].split(".")[0] in FORBIDDEN_MODULES]
    assert not [pair for pair in allowed_names() if "." in pair[1] or "*" in pair[1]]


MODELS: list[Any] = [
    linear_model.SGDClassifier(loss="modified_huber"),
    linear_model.PoissonRegressor(),
    ensemble.HistGradientBoostingClassifier(max_iter=2),
    ensemble.HistGradientBoostingRegressor(max_iter=2, loss="absolute_error"),
    ensemble.GradientBoostingClassifier(n_estimators=2),
    ensemble.AdaBoostClassifier(n_estimators=2),
    ensemble.BaggingClassifier(n_estimators=2, random_state=np.random.RandomState(0)),
    neighbors.KNeighborsClassifier(algorithm="kd_tree"),
    neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    svm.NuSVC(),
    preprocessing.SplineTransformer(),
    preprocessing.QuantileTransformer(n_quantiles=20),
    preprocessing.FunctionTransformer(np.log1p),
    preprocessing.KBinsDiscretizer(encode="onehot-dense"),
]


@pytest.mark.parametrize("model", MODELS, ids=[type(model).__name__ for model in MODELS])
def test_fitted_models_load(model: Any, tmp_path: Path) -> None:
    """Fitted models come back whole from every kind of pickle."""
    rows, labels = load_iris(return_X_y=True)
    model.fit(rows, labels)
    ask = model.predict if hasattr(model, "predict") else model.transform
    expected = np.asarray(ask(rows))
    files = [save(model, tmp_path / "model.joblib")]
    for protocol in (2, 4, 5):
        path = tmp_path / f"model{protocol}.pkl"
        path.write_bytes(pickle.dumps(model, protocol=protocol))
        files.append(path)
    for path in files:
        loaded: Any = load_pickle(path, trust_pickle=False)
        ask = loaded.predict if hasattr(loaded, "predict") else loaded.transform
        np.testing.assert_array_equal(expected, np.asarray(ask(rows)))
