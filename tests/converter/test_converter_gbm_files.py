"""Gradient boosting as files: native ones and pickles, whole and damaged."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from converter_models import run, save, table
from gbm_models import Machines, machines
from sklearn.ensemble import VotingClassifier

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task, TensorSpec
from edgepack.converter import ModelFileError, Precision, UnsafeModelError, UnsupportedModelError
from edgepack.converter.sources.find import recognise, source_named
from edgepack.converter.sources.source import ExportWish, LoadedModel, LoadOptions
from edgepack.converter.sources.unpickle import load_pickle
from edgepack.runtime import load

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
catboost = pytest.importorskip("catboost")
onnxruntime = pytest.importorskip("onnxruntime")

X = {"n_estimators": 12, "verbosity": 0, "n_jobs": 1}
L = {"n_estimators": 12, "verbose": -1, "n_jobs": 1, "min_child_samples": 5}
C = {"n_estimators": 12, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
SUFFIXES = {"xgboost": (".json", ".ubj"), "lightgbm": (".txt",), "catboost": (".cbm",)}
FILES = [(library, suffix) for library, found in SUFFIXES.items() for suffix in found]


@pytest.fixture(scope="module")
def data() -> Machines:
    """The rows and targets of every test."""
    return machines()


def _classifier(library: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "xgboost": lambda: xgboost.XGBClassifier(**X),
        "lightgbm": lambda: lightgbm.LGBMClassifier(**L),
        "catboost": lambda: catboost.CatBoostClassifier(**C),
    }
    return makers[library]()


def _regressor(library: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "xgboost": lambda: xgboost.XGBRegressor(**X, objective="count:poisson"),
        "lightgbm": lambda: lightgbm.LGBMRegressor(**L, objective="poisson"),
        "catboost": lambda: catboost.CatBoostRegressor(**C, loss_function="Poisson"),
    }
    return makers[library]()


def _native(model: Any, path: Path) -> Path:
    if path.suffix == ".txt":
        model.booster_.save_model(path)
    else:
        model.save_model(path)
    return path


def _load(path: Path) -> LoadedModel:
    """As the child process loads a file that was recognised."""
    source = source_named(recognise(path).module)
    source.prepare()
    return source.load(path, LoadOptions())


def _exported(model: LoadedModel, rows: Any, outputs: tuple[str, ...]) -> list[Any]:
    """The exported file's answers to float32 rows."""
    assert model.facts.task is not None
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, rows.shape[1]))
    wish = ExportWish(task=model.facts.task, inputs=(spec,), outputs=outputs, precision="fp32")
    exported = model.export(wish)
    assert exported.facts.summary.opsets == {"": 17, "ai.onnx.ml": 3}
    session = onnxruntime.InferenceSession(exported.data)
    tensors = [binding.tensor for binding in exported.facts.outputs]
    return session.run(tensors, {"x": rows.astype(np.float32)})


@pytest.mark.parametrize(("library", "suffix"), FILES)
@pytest.mark.parametrize("target", ["two", "four"])
def test_native_classifiers(
    library: str, suffix: str, target: str, data: Machines, tmp_path: Path
) -> None:
    """A native file's classes and probabilities are those of the wrapper that saved it."""
    fitted = _classifier(library).fit(data.with_nan, getattr(data, target))
    model = _load(_native(fitted, tmp_path / f"model{suffix}"))
    assert Task.CLASSIFICATION == model.facts.task
    assert tuple(str(item) for item in fitted.classes_) == model.facts.class_names
    assert () == model.facts.feature_names
    assert 5 == model.facts.features
    answers = model.run(Task.CLASSIFICATION, {"x": data.with_nan})
    assert np.ravel(fitted.predict(data.with_nan)).tolist() == answers["label"].tolist()
    np.testing.assert_allclose(
        answers["probabilities"], fitted.predict_proba(data.with_nan), rtol=1e-6
    )
    label, probabilities = _exported(model, data.with_nan, ("label", "probabilities"))
    assert answers["label"].tolist() == label.tolist()
    np.testing.assert_allclose(probabilities, answers["probabilities"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("library", "suffix"), FILES)
def test_native_regressors(library: str, suffix: str, data: Machines, tmp_path: Path) -> None:
    """A native file's values go through its objective's link."""
    fitted = _regressor(library).fit(data.plain, data.count)
    model = _load(_native(fitted, tmp_path / f"model{suffix}"))
    assert Task.REGRESSION == model.facts.task
    expected = fitted.predict(data.plain)
    value = model.run(Task.REGRESSION, {"x": data.plain})["value"]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(
        _exported(model, data.plain, ("value",))[0][:, 0], expected, rtol=1e-4
    )


def test_text_classes_of_catboost(data: Machines, tmp_path: Path) -> None:
    """CatBoost's file knows its classes' names, and they stay."""
    names = np.array(["off", "idle", "busy", "hot"])[data.four]
    fitted = catboost.CatBoostClassifier(**C).fit(data.plain, names)
    model = _load(_native(fitted, tmp_path / "model.cbm"))
    assert ("busy", "hot", "idle", "off") == model.facts.class_names
    label, _ = _exported(model, data.plain, ("label", "probabilities"))
    assert np.ravel(fitted.predict(data.plain)).tolist() == label.tolist()


def test_early_stopping_of_a_file(data: Machines, tmp_path: Path) -> None:
    """A wrapper's file answers up to its best round, a Booster's with all; either is said."""
    late = (data.plain[400:], data.two[400:])
    fitted = xgboost.XGBClassifier(**X | {"n_estimators": 60}, early_stopping_rounds=2)
    fitted.fit(data.plain[:60], data.two[:60], eval_set=[late], verbose=False)
    model = _load(_native(fitted, tmp_path / "wrapper.ubj"))
    assert any("its first" in message for message in model.facts.messages)
    answers = model.run(Task.CLASSIFICATION, {"x": data.plain})
    np.testing.assert_allclose(answers["probabilities"], fitted.predict_proba(data.plain))
    booster = fitted.get_booster()
    booster.set_attr(scikit_learn=None)
    booster.save_model(tmp_path / "booster.ubj")
    model = _load(tmp_path / "booster.ubj")
    assert any("all its rounds" in message for message in model.facts.messages)
    expected = booster.predict(xgboost.DMatrix(data.plain), iteration_range=(0, 0))
    answers = model.run(Task.CLASSIFICATION, {"x": data.plain})
    np.testing.assert_allclose(answers["probabilities"][:, 1], expected)
    _, probabilities = _exported(model, data.plain, ("label", "probabilities"))
    np.testing.assert_allclose(probabilities[:, 1], expected, rtol=1e-4)


@pytest.mark.parametrize("library", SUFFIXES)
@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".skops"])
def test_pickled_wrappers(library: str, suffix: str, data: Machines, tmp_path: Path) -> None:
    """A wrapper alone loads without being trusted, and answers as it did before."""
    fitted = _classifier(library).fit(data.with_nan, data.four)
    model = _load(save(fitted, tmp_path / f"model{suffix}"))
    assert {library} <= set(model.facts.packages)
    assert 5 == model.facts.features
    assert () == model.facts.feature_names
    answers = model.run(Task.CLASSIFICATION, {"x": data.with_nan})
    assert np.ravel(fitted.predict(data.with_nan)).tolist() == answers["label"].tolist()
    label, probabilities = _exported(model, data.with_nan, ("label", "probabilities"))
    assert answers["label"].tolist() == label.tolist()
    np.testing.assert_allclose(probabilities, answers["probabilities"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_pickled_boosters(library: str, data: Machines, tmp_path: Path) -> None:
    """A pickled Booster is taken as its native file is."""
    fitted = _classifier(library).fit(data.plain, data.two)
    booster = fitted.get_booster() if library == "xgboost" else fitted.booster_
    path = tmp_path / "model.joblib"
    joblib.dump(booster, path)
    model = _load(path)
    assert library == model.facts.framework.lower()
    answers = model.run(Task.CLASSIFICATION, {"x": data.plain})
    assert fitted.predict(data.plain).tolist() == answers["label"].tolist()


@pytest.mark.parametrize(("library", "suffix"), FILES)
def test_native_files_to_bundles(library: str, suffix: str, tmp_path: Path) -> None:
    """A native file becomes a bundle that answers as the library does, by the data's names."""
    iris = table("iris", tmp_path)
    fitted = _classifier(library).fit(iris.train.rename(columns=_underscores), iris.train_labels)
    frame = iris.train.iloc[:0]
    path = _native(fitted, tmp_path / f"model{suffix}")
    import pandas

    rows = pandas.read_csv(iris.path).rename(columns=_underscores)
    rows.to_csv(iris.path, index=False)
    report = run(path, iris, tmp_path, precision=Precision.FP32)
    with load(open_bundle(report.path)) as model:
        (spec,) = model.contract.inputs
        assert tuple(_underscores(name) for name in frame.columns) == spec.feature_names
        features = rows.drop(columns="target").to_numpy()
        answers = model.predict({"x": features.astype(np.float32)})
    expected = (
        fitted.predict(features).ravel()
        if library != "lightgbm"
        else fitted.predict(rows.drop(columns="target"))
    )
    assert expected.tolist() == answers["label"].tolist()


def _underscores(name: str) -> str:
    return name.replace(" ", "_")


@pytest.mark.parametrize(("library", "suffix"), FILES)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.98])
def test_truncated_files(
    library: str, suffix: str, kept: float, data: Machines, tmp_path: Path
) -> None:
    """However a native file is cut, it is one line, and no process ends for it."""
    path = _native(_classifier(library).fit(data.plain, data.two), tmp_path / f"model{suffix}")
    whole = path.read_bytes()
    if library == "lightgbm":  # what follows the trees is not needed
        whole = whole[: whole.index(b"end of trees")]
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelFileError) as caught:
        _load(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_trees_that_lead_outside(data: Machines, tmp_path: Path) -> None:
    """A file whose trees name nodes or columns that are not there is refused before it runs."""
    path = _native(_classifier("xgboost").fit(data.plain, data.two), tmp_path / "model.json")
    whole = json.loads(path.read_text())
    for name in ("left_children", "split_indices"):
        changed = json.loads(path.read_text())
        trees = changed["learner"]["gradient_booster"]["model"]["trees"]
        trees[0][name][0] = 4000
        path.write_text(json.dumps(changed))
        with pytest.raises(ModelFileError):
            _load(path)
        path.write_text(json.dumps(whole))
    assert 5 == _load(path).facts.features


def test_other_text_is_no_model(tmp_path: Path) -> None:
    """JSON, text and old files of other kinds are not taken for boosters."""
    for text in ("{}", '{"version": 1}', "tree\nhouse\n", "CBM"):
        path = tmp_path / "model.json"
        path.write_text(text)
        with pytest.raises(ModelFileError, match="edgepack converts"):
            recognise(path)
    path.write_bytes(b"binf" + bytes(64))
    with pytest.raises(ModelFileError, match=r"old binary format.*\.ubj"):
        recognise(path)


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_call_inside_a_wrapper_does_not_run(data: Machines, tmp_path: Path) -> None:
    """A command among a wrapper's parameters is refused, and the same file would run it."""
    import os

    mark = tmp_path / "pwned"
    fitted = _classifier("xgboost").fit(data.plain, data.two)
    fitted.eval_metric = Calls(os.system, f"touch {mark}")
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(fitted))
    with pytest.raises(UnsafeModelError, match=r"system, which is not on the list"):
        load_pickle(path, trust_pickle=False)
    assert not mark.exists()
    load_pickle(path, trust_pickle=True)
    assert mark.exists()


def test_a_damaged_booster_in_a_pickle(data: Machines, tmp_path: Path) -> None:
    """LightGBM would end the process for such a text; it is refused before it reads it."""
    fitted = _classifier("lightgbm").fit(data.plain, data.two)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(fitted).replace(b"threshold=", b"thresholt="))
    with pytest.raises(ModelFileError, match="LightGBM"):
        load_pickle(path, trust_pickle=False)


def test_own_categories_of_a_file_are_refused(data: Machines, tmp_path: Path) -> None:
    """A native file of a model that encodes text itself is refused with what to do instead."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data.plain, columns=list("abcde"))
    frame["d"] = pandas.Categorical([f"kind {int(value)}" for value in frame["d"]])
    models = {
        ".ubj": xgboost.XGBRegressor(**X, enable_categorical=True),
        ".txt": lightgbm.LGBMRegressor(**L),
    }
    for suffix, model in models.items():
        path = _native(model.fit(frame, data.value), tmp_path / f"model{suffix}")
        with pytest.raises(UnsupportedModelError, match="scikit-learn pipeline before the model"):
            _load(path)


def test_columns_whose_names_have_spaces(tmp_path: Path) -> None:
    """LightGBM keeps underscores for spaces; the data's columns are found all the same."""
    iris = table("iris", tmp_path)
    fitted = _classifier("lightgbm").fit(iris.train, iris.train_labels)
    path = _native(fitted, tmp_path / "model.txt")
    assert "sepal_length" in _load(path).facts.feature_names
    report = run(path, iris, tmp_path, precision=Precision.FP32)
    with load(open_bundle(report.path)) as model:
        (spec,) = model.contract.inputs
        assert tuple(iris.train.columns) == spec.feature_names


@pytest.mark.parametrize("library", SUFFIXES)
def test_names_of_a_pickled_wrapper(library: str, tmp_path: Path) -> None:
    """A wrapper that was fitted on a table asks for that table's columns."""
    iris = table("iris", tmp_path)
    fitted = _classifier(library).fit(iris.train.rename(columns=_underscores), iris.train_labels)
    voting = VotingClassifier([("only", fitted)], voting="soft")
    voting.fit(iris.train.to_numpy(), iris.train_labels)
    facts = _load(save(fitted, tmp_path / "model.pkl")).facts
    assert ("sepal_length", "sepal_width", "petal_length", "petal_width") == facts.feature_names
    assert 4 == facts.features
    assert 4 == _load(save(voting, tmp_path / "voting.pkl")).facts.features
