"""Classifiers that give several labels a row, from the estimator to the answers of a bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from converter_models import save
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn_parity import both_answers

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task
from edgepack.converter import (
    ConvertRequest,
    UnfitDataError,
    UnsupportedModelError,
    convert,
)
from edgepack.runtime import load

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 4))
FRESH = pd.DataFrame(RANDOM.normal(size=(200, 4)))
THERE = (ROWS[:, :3] > [0.0, 0.3, -0.5]).astype(int)
CODES = np.stack([np.digitize(ROWS[:, 0], [-0.5, 0.5]), (ROWS[:, 1] > 0) * 3 + 2], axis=1)
TEXTS = np.stack(
    [np.array(["lo", "mid", "hi"])[CODES[:, 0]], np.where(ROWS[:, 1] > 0, "a", "b")], axis=1
)


def _lines() -> LogisticRegression:
    return LogisticRegression()


def _forest() -> RandomForestClassifier:
    return RandomForestClassifier(5, max_depth=4, random_state=0)


CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "each target": (lambda: MultiOutputClassifier(_lines()), CODES),
    "texts": (lambda: MultiOutputClassifier(_lines()), TEXTS),
    "no probabilities": (lambda: MultiOutputClassifier(LinearSVC()), THERE),
    "one target in a column": (lambda: MultiOutputClassifier(_forest()), CODES[:, :1]),
    "pipelines inside": (
        lambda: MultiOutputClassifier(make_pipeline(StandardScaler(), _lines())),
        CODES,
    ),
    "chain": (lambda: ClassifierChain(_lines(), order=[2, 0, 1]), THERE),
    "chain of probabilities": (
        lambda: ClassifierChain(
            _lines(), order="random", chain_method="predict_proba", random_state=3
        ),
        THERE,
    ),
    "chain of decisions": (
        lambda: ClassifierChain(LinearSVC(), chain_method="decision_function", cv=3),
        THERE,
    ),
    "neighbours": (KNeighborsClassifier, CODES),
    "near neighbours": (lambda: KNeighborsClassifier(weights="distance"), TEXTS),
    "radius": (lambda: RadiusNeighborsClassifier(1.0, outlier_label=[0, 2]), CODES),
    "tree": (lambda: DecisionTreeClassifier(max_depth=5), CODES),
    "extra tree": (lambda: ExtraTreeClassifier(max_depth=5), TEXTS),
    "forest": (_forest, CODES),
    "extra trees": (lambda: ExtraTreesClassifier(5), THERE),
    "network": (lambda: MLPClassifier((8, 4), activation="tanh", max_iter=30), THERE),
    "ridge": (RidgeClassifier, THERE),
    "ridge cv": (RidgeClassifierCV, THERE),
    "one against the rest": (lambda: OneVsRestClassifier(_lines()), THERE),
    "rest by decisions": (lambda: OneVsRestClassifier(LinearSVC()), THERE),
    "dummy": (lambda: DummyClassifier(strategy="prior"), CODES),
    "in a pipeline": (lambda: make_pipeline(StandardScaler(), _forest()), TEXTS),
    "searched": (lambda: GridSearchCV(_forest(), {"max_depth": [2, 3]}, cv=2), THERE),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("name", CASES)
def test_all_labels_are_the_models(name: str, precision: str) -> None:
    """All labels of all rows are the estimator's own, and so are the probabilities."""
    make, targets = CASES[name]
    model = make().fit(ROWS, targets)
    rows = FRESH.astype(np.float32) if precision == "fp32" else FRESH
    expected, got = both_answers(model, rows, precision)
    assert model.predict(rows.to_numpy()).astype(str).tolist() == _texts(expected["label"], model)
    assert expected["label"].tolist() == got["label"].tolist()
    for output in expected.keys() - {"label"}:
        near = 1e-6 if precision == "fp32" else 1e-12
        assert float(np.abs(expected[output] - got[output]).max()) < near


def _texts(labels: Any, model: Any) -> list[list[str]]:
    """As the estimator writes them: a chain's are fractions."""
    kind = model.predict(FRESH.to_numpy()[:1]).dtype.kind
    return (labels.astype(float) if kind == "f" else labels).astype(str).tolist()  # type: ignore[no-any-return]


def test_what_no_graph_holds() -> None:
    """Stacked models of several labels a row are refused in one line."""
    members = [("a", _forest()), ("b", KNeighborsClassifier())]
    model = StackingClassifier(members, final_estimator=_forest(), cv=2).fit(ROWS, THERE)
    with pytest.raises(UnsupportedModelError, match="StackingClassifier with several labels a row"):
        both_answers(model, FRESH)


def test_xgboost_file_of_several_labels(tmp_path: Path) -> None:
    """A native file answers each label as XGBClassifier does; the wrapper's pickle says so."""
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, THERE)
    model.save_model(tmp_path / "model.ubj")
    data = tmp_path / "rows.csv"
    pd.DataFrame(np.hstack([ROWS, THERE]), columns=list("abcdxyz")).to_csv(data, index=False)
    request = ConvertRequest(
        model=tmp_path / "model.ubj", data=data, label="x,y,z", output=tmp_path / "out"
    )
    with load(convert(request).path) as bundle:
        assert Task.GENERIC is bundle.contract.task
        answers = bundle.predict({"x": ROWS.astype(np.float32)})
    assert model.predict(ROWS).tolist() == answers["label"].tolist()
    near = np.abs(model.predict_proba(ROWS) - answers["probabilities"]).max()
    assert float(near) < 1e-6
    with pytest.raises(UnsupportedModelError, match="convert the file of its save_model"):
        both_answers(model, FRESH)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two targets of text and its rows."""
    folder = tmp_path_factory.mktemp("several")
    frame = pd.DataFrame(ROWS, columns=["speed", "torque", "heat", "load"])
    targets = pd.DataFrame(TEXTS, columns=["pump", "valve"])
    save(_forest().fit(frame, targets), folder / "model.joblib")
    pd.concat([frame, targets], axis=1).to_csv(folder / "rows.csv", index=False)
    return folder


def test_to_a_bundle(saved: Path, tmp_path: Path) -> None:
    """A bundle names the targets, was judged by all labels of a row, and answers as the model."""
    report = convert(
        ConvertRequest(
            model=saved / "model.joblib",
            data=saved / "rows.csv",
            label="pump,valve",
            output=tmp_path,
        )
    )
    contract = open_bundle(report.path).contract
    label = next(spec for spec in contract.outputs if spec.name == "label")
    assert (Task.GENERIC, ("pump", "valve")) == (contract.task, label.feature_names)
    figures = contract.variants[0].parity.figures
    assert 1.0 == figures["agreement"]
    assert figures["accuracy_original"] == figures["accuracy"]
    with load(report.path) as model:
        answer = model.predict({"x": ROWS.astype(np.float32)})["label"]

    original = joblib.load(saved / "model.joblib")
    frame = pd.DataFrame(ROWS.astype(np.float32), columns=["speed", "torque", "heat", "load"])
    assert original.predict(frame).tolist() == answer.tolist()


def test_too_few_columns_of_truths(saved: Path, tmp_path: Path) -> None:
    """One column of truths for two targets is refused in one line."""
    request = ConvertRequest(
        model=saved / "model.joblib", data=saved / "rows.csv", label="pump", output=tmp_path
    )
    with pytest.raises(UnfitDataError, match="the model gives 2 labels a row"):
        convert(request)
    assert [] == list(tmp_path.iterdir())
