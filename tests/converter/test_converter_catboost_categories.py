"""CatBoost's own categories: one-hot columns and statistics of the target, alone and combined."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn_parity import both_answers

from edgepack.bundle import open_bundle
from edgepack.converter import ConvertRequest, Precision, convert
from edgepack.converter.errors import UnfitDataError, UnsupportedModelError
from edgepack.converter.gbm_model import catboost_categories
from edgepack.converter.gbm_model.catboost_trees import read_catboost
from edgepack.converter.gbm_model.city_hash import category_hashes
from edgepack.runtime import load
from edgepack.runtime.tensors import DTYPES

pandas = pytest.importorskip("pandas")
catboost = pytest.importorskip("catboost")

CATEGORIES = ["Type", "wear", "line"]
NUMBERS = ["Air temperature [K]", "Rotational speed [rpm]", "Torque [Nm]"]
EVERY_KIND = {
    "simple_ctr": ["Borders", "BinarizedTargetMeanValue", "Counter", "Buckets"],
    "combinations_ctr": ["Borders", "BinarizedTargetMeanValue", "Counter", "Buckets"],
}
KINDS = ("two", "three", "regression")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "every kind": {**EVERY_KIND, "max_ctr_complexity": 4},
    "simple ones": {"max_ctr_complexity": 1},
    "one-hot columns in combinations": {"one_hot_max_size": 3, "max_ctr_complexity": 3},
    "one-hot columns only": {"one_hot_max_size": 255},
}


@pytest.fixture(scope="module")
def frame(shared_data: Path) -> Any:
    """The real file, with two more columns of categories made of its own."""
    found = pandas.read_csv(shared_data / "ai4i2020" / "ai4i2020.csv", encoding="utf-8-sig")
    found["wear"] = (found["Tool wear [min]"] // 25).astype(str) + " mal 25 min"
    found["line"] = found["UDI"] % 7
    return found[[*CATEGORIES, *NUMBERS, "Machine_failure"]]


def _truth(frame: Any, kind: str) -> Any:
    load_nm = frame["Torque [Nm]"] + 9 * (frame["Type"] == "M") + 3 * frame["line"]
    load_nm = load_nm + frame["wear"].str.len() + (frame["line"] > 3) * (frame["wear"] < "3") * 6
    if kind == "regression":
        return load_nm
    return pandas.cut(load_nm, [0, 50, 500] if kind == "two" else [0, 45, 60, 500], labels=False)


def _model(kind: str, **settings: Any) -> Any:
    maker = catboost.CatBoostRegressor if kind == "regression" else catboost.CatBoostClassifier
    fixed = {"iterations": 25, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    return maker(**{**fixed, "cat_features": tuple(CATEGORIES), **settings})


def _asked(rows: Any) -> Any:
    """The rows, with categories among them that no model has seen, and missing texts."""
    asked = rows.copy()
    asked.loc[::5, "Type"] = "Q"
    asked.loc[::7, "wear"] = ""
    asked.loc[::3, "line"] = 99
    return asked


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("default", "every kind") for kind in KINDS),
        ("simple ones", "regression"),
        ("one-hot columns in combinations", "two"),
        ("one-hot columns only", "three"),
    ],
)
def test_every_row(name: str, kind: str, frame: Any) -> None:
    """Every row gets the original's answer, one with unknown or missing categories, too."""
    rows = frame.drop(columns="Machine_failure")
    model = _model(kind, **SETTINGS[name]).fit(rows, _truth(frame, kind))
    asked = pandas.concat([rows, _asked(rows)], ignore_index=True)
    expected, found = both_answers(model, asked, "fp32")
    if kind == "regression":
        np.testing.assert_allclose(found["value"], expected["value"], rtol=2e-6)
        return
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=0, atol=2e-6)


def test_combinations_are_tested(frame: Any, tmp_path: Path) -> None:
    """The settings of the other test do make combinations, of numbers and one-hot columns, too."""
    rows = frame.drop(columns="Machine_failure")
    seen = set()
    for settings in (SETTINGS["every kind"], SETTINGS["one-hot columns in combinations"]):
        model = _model("two", **settings).fit(rows, _truth(frame, "two"))
        model.save_model(tmp_path / "model.json", format="json")
        document = json.loads((tmp_path / "model.json").read_text())
        for item in document["features_info"]["ctrs"]:
            parts = sorted({part["combination_element"] for part in item["elements"]})
            seen.add((item["ctr_type"], len(item["elements"]) > 1, *parts))
    kinds = {item[0] for item in seen}
    assert {"Borders", "BinarizedTargetMeanValue", "Counter", "Buckets"} == kinds, seen
    assert any("float_feature" in item for item in seen), seen
    assert any("cat_feature_exact_value" in item for item in seen), seen


@pytest.mark.parametrize("native", [True, False], ids=["cbm", "joblib"])
def test_conversion(native: bool, frame: Any, tmp_path: Path) -> None:
    """Default parameters on the real failures: all rows get their labels from the bundle."""
    rows, truth = frame.drop(columns="Machine_failure"), frame["Machine_failure"]
    model = _model("two", iterations=60, cat_features=CATEGORIES).fit(rows, truth)
    path = tmp_path / ("model.cbm" if native else "model.joblib")
    if native:
        model.save_model(path)
    else:
        joblib.dump(model, path)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    report = convert(
        ConvertRequest(
            model=path,
            data=tmp_path / "rows.csv",
            label="Machine_failure",
            output=tmp_path / "out",
            precision=Precision.FP32,
        )
    )
    with load(open_bundle(report.path)) as loaded:
        inputs = {
            spec.name: rows[spec.name]
            .to_numpy()
            .reshape(-1, 1)
            .astype(object if spec.name in CATEGORIES[:2] else DTYPES[spec.datatype])
            for spec in loaded.contract.inputs
        }
        found = loaded.predict(inputs)
    assert np.asarray(model.predict(rows)).tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibrated(method: str, frame: Any) -> None:
    """A calibrated model, fitted before or with the calibration, answers as the original."""
    rows, truth = frame.drop(columns="Machine_failure"), _truth(frame, "two")
    fitted = FrozenEstimator(_model("two").fit(rows, truth))
    for inner in (fitted, _model("two")):
        model = CalibratedClassifierCV(inner, method=method, cv=2).fit(rows, truth)
        expected, found = both_answers(model, _asked(rows))
        assert expected["label"].tolist() == found["label"].tolist()
        np.testing.assert_allclose(
            found["probabilities"], expected["probabilities"], rtol=0, atol=1e-6
        )


def test_high_cardinality() -> None:
    """Tables of which few entries are used are stored without the others."""
    pair = np.arange(3900) % 130
    rows = pandas.DataFrame(
        {"a": [f"a{p % 65}" for p in pair], "b": [f"b{(p * 7 + p // 65) % 65}" for p in pair]}
    )
    settings = {"max_ctr_complexity": 2, "cat_features": ("a", "b")}
    model = _model("two", **settings).fit(rows, pair // 65)
    names = {place: tuple(rows[name].unique()) for place, name in enumerate("ab")}
    lookups = read_catboost(model._serialize_model(), names).ensemble.lookups
    assert {True, False} == {lookups.is_dense(table) for table in lookups.tables}
    asked = rows.copy()
    asked.loc[::3, "a"] = "a3"
    asked.loc[::5, "b"] = "Q"
    expected, found = both_answers(model, asked, "fp32")
    assert {0, 1} == set(expected["label"].tolist())
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=0, atol=2e-6)


def test_too_large(frame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that are too large for a device are refused in one line that says what helps."""
    rows = frame.drop(columns="Machine_failure")
    model = _model("two", **SETTINGS["every kind"]).fit(rows, _truth(frame, "two"))
    with monkeypatch.context() as patch:
        patch.setattr(catboost_categories, "MOST_TUPLES", 10)
        with pytest.raises(UnsupportedModelError, match="combinations, more than 10: train with"):
            both_answers(model, rows)
    monkeypatch.setattr(catboost_categories, "MOST_BYTES", 100)
    with pytest.raises(UnsupportedModelError, match="max_ctr_complexity"):
        both_answers(model, rows)


def test_categories_that_the_data_lacks(frame: Any) -> None:
    """Of categories that the data does not show, the report says so."""
    rows = frame.drop(columns="Machine_failure")
    data = _model("two", **SETTINGS["simple ones"]).fit(rows, _truth(frame, "two"))
    blob = data._serialize_model()
    whole = {0: ("L", "M", "H"), 1: tuple(rows["wear"].unique()), 2: tuple("0123456")}
    assert read_catboost(blob, whole).unseen[0] == 0
    fewer = read_catboost(blob, {**whole, 0: ("L", "M")})
    assert fewer.unseen == (1, read_catboost(blob, whole).unseen[1])


def test_fractions(frame: Any) -> None:
    """A fraction as a category, which CatBoost refuses, is refused in one line."""
    rows = frame.drop(columns="Machine_failure")
    model = _model("two", iterations=2).fit(rows, _truth(frame, "two"))
    asked = rows.astype({"line": float})
    asked.loc[3, "line"] = 1.5
    with pytest.raises(UnfitDataError, match=r"got 1\.5 in column line"):
        both_answers(model, asked)


def test_hashes(tmp_path: Path) -> None:
    """Texts of every length have the hashes that the library keeps for them."""
    random = np.random.default_rng(1)
    letters = np.array(list("abcXYZ 019äö€😀_-"))
    sizes = [*range(1, 140), *random.integers(1, 300, 60)]
    texts = ["".join(random.choice(letters, size)) for size in sizes]
    kept = set()
    for begin in range(0, len(texts), 50):
        some = texts[begin : begin + 50]
        rows = pandas.DataFrame({text: [text, "other"] * 20 for text in some})
        truth = np.arange(40) % 2
        model = catboost.CatBoostClassifier(
            iterations=60, depth=1, rsm=0.02, one_hot_max_size=2, thread_count=1, verbose=0,
            allow_writing_files=False, cat_features=list(range(len(some))), random_seed=begin,
        ).fit(rows, truth)  # fmt: skip
        model.save_model(tmp_path / "model.json", format="json")
        document = json.loads((tmp_path / "model.json").read_text())
        for item in document["features_info"]["categorical_features"]:
            values = item.get("values", ())
            own = category_hashes([some[item["feature_index"]], "other"]).view(np.int32)
            assert set(values) <= set(own.tolist())
            kept.add(own[0] if own[0] in values else None)
    assert len(kept - {None}) > 20


def _columns() -> Any:
    """Passes categories on, encodes one of them for itself, scales numbers, drops one."""
    steps = [
        ("numbers", StandardScaler(), NUMBERS),
        ("own", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["shift"]),
        ("passed", "passthrough", CATEGORIES),
    ]
    return ColumnTransformer(steps).set_output(transform="pandas")


@pytest.mark.parametrize("holder", ["pipeline", "calibrated"])
def test_behind_a_column_transformer(holder: str, frame: Any) -> None:
    """Categories that a ColumnTransformer passes on reach the model behind it."""
    rows = frame.drop(columns="Machine_failure")
    rows.insert(1, "unused", 0)
    rows.insert(2, "shift", np.array(["day", "night", "spät"])[np.arange(len(rows)) % 3])
    inner = _model("two", cat_features=tuple(f"passed__{name}" for name in CATEGORIES))
    model = make_pipeline(_columns(), inner).fit(rows, _truth(frame, "two"))
    if holder == "calibrated":
        calibrated = CalibratedClassifierCV(FrozenEstimator(model))
        model = calibrated.fit(rows, _truth(frame, "two"))
    asked = _asked(rows)
    expected, found = both_answers(
        model, asked if holder == "calibrated" else asked.drop(columns="unused")
    )
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=0, atol=1e-6)


def test_made_categories(frame: Any) -> None:
    """Categories that a step makes, or that another step looks at, are refused in one line."""
    rows, truth = frame.drop(columns="Machine_failure"), _truth(frame, "two")
    made = ColumnTransformer([("made", OrdinalEncoder(dtype=int), CATEGORIES)])
    made.set_output(transform="pandas")
    inner = _model("two", iterations=2, cat_features=("made__Type",))
    with pytest.raises(UnsupportedModelError, match="let the ColumnTransformer pass that column"):
        both_answers(make_pipeline(made, inner).fit(rows, truth), rows)
    shared = ColumnTransformer(
        [("scaled", StandardScaler(), ["line"]), ("passed", "passthrough", ["line"])]
    ).set_output(transform="pandas")
    inner = _model("two", iterations=2, cat_features=("passed__line",))
    with pytest.raises(UnsupportedModelError, match="StandardScaler looks at a column"):
        both_answers(make_pipeline(shared, inner).fit(rows[["line"]], truth), rows[["line"]])
