"""Every family of scikit-learn's estimators, on real data, against the original."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from converter_models import Table, digits, fit_and_save, opened, run, save, table, variant
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from edgepack.bundle.contract import Datatype, Nonfinite, Task
from edgepack.converter import Precision, UnfitDataError, UnsupportedModelError
from edgepack.runtime import InputError, load
from edgepack.runtime.dataset import read_dataset
from edgepack.runtime.dataset_inputs import to_inputs

TREES = "a tree ensemble compares numbers"
SVM = "nothing to quantize"
LINEAR = "a linear model"
FAMILIES: list[tuple[str, Any, Task, set[str], str | None]] = [
    ("breast", LogisticRegression(max_iter=5000), Task.CLASSIFICATION, {"probabilities"}, LINEAR),
    ("breast", make_pipeline(StandardScaler(), LinearSVC()), Task.CLASSIFICATION, {"scores"}, None),
    ("wine", make_pipeline(StandardScaler(), SVC()), Task.CLASSIFICATION, set(), SVM),
    (
        "breast",
        make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
        Task.CLASSIFICATION,
        {"scores"},
        None,
    ),
    ("iris", KNeighborsClassifier(), Task.CLASSIFICATION, {"probabilities"}, None),
    (
        "breast",
        RandomForestClassifier(20, random_state=0),
        Task.CLASSIFICATION,
        {"probabilities"},
        TREES,
    ),
    (
        "wine",
        GradientBoostingClassifier(n_estimators=20),
        Task.CLASSIFICATION,
        {"probabilities"},
        TREES,
    ),
    (
        "breast",
        HistGradientBoostingClassifier(max_iter=20),
        Task.CLASSIFICATION,
        {"probabilities"},
        TREES,
    ),
    ("diabetes", Ridge(), Task.REGRESSION, {"value"}, LINEAR),
    ("diabetes", SVR(C=50), Task.REGRESSION, {"value"}, SVM),
    ("diabetes", RandomForestRegressor(20, random_state=0), Task.REGRESSION, {"value"}, TREES),
    ("diabetes", HistGradientBoostingRegressor(max_iter=20), Task.REGRESSION, {"value"}, TREES),
    ("breast", IsolationForest(n_estimators=10, random_state=0), Task.OUTLIER, {"scores"}, TREES),
    ("iris", KMeans(3, n_init=3, random_state=0), Task.CLUSTERING, set(), None),
    ("wine", StandardScaler(), Task.TRANSFORM, {"value"}, None),
    ("diabetes", PCA(4), Task.TRANSFORM, {"value"}, None),
]


@pytest.fixture(scope="module")
def tables(models: Path) -> dict[str, Table]:
    return {name: table(name, models) for name in ("breast", "diabetes", "iris", "wine")}


@pytest.mark.parametrize(
    ("data", "model", "task", "outputs", "why_no_int8"),
    FAMILIES,
    ids=[f"{type(item[1]).__name__}-{item[0]}" for item in FAMILIES],
)
def test_family(
    data: str,
    model: Any,
    task: Task,
    outputs: set[str],
    why_no_int8: str | None,
    tables: dict[str, Table],
    tmp_path: Path,
) -> None:
    """The packed model answers every row of the file as the original does, labels exactly."""
    source = tables[data]
    path = fit_and_save(model, source, tmp_path / "model.joblib")
    report = run(path, source, tmp_path)
    kept = next(item for item in report.variants if item.kept)
    assert task is report.task
    assert kept.parity is not None
    assert kept.parity.value == 1.0
    contract = opened(report).contract
    assert outputs <= {spec.name for spec in contract.outputs}
    int8 = variant(report, "onnx-int8")
    assert not int8.kept
    assert (why_no_int8 or "nothing to") in (int8.reason or "")
    _check_every_row(model, source, report)


def _check_every_row(model: Any, source: Table, report: Any) -> None:
    dataset = read_dataset(source.path, label=source.label)
    frame = pd.read_csv(source.path).drop(columns=source.label)
    with load(report.path) as packed:
        got = packed.predict(to_inputs(dataset, packed.contract))
    if "label" in got:
        assert model.predict(frame).tolist() == got["label"].tolist()
    if "probabilities" in got:
        np.testing.assert_allclose(got["probabilities"], model.predict_proba(frame), 1e-4, 1e-5)
    if "value" in got:
        expected = model.predict(frame) if hasattr(model, "predict") else model.transform(frame)
        np.testing.assert_allclose(got["value"], expected, rtol=1e-4, atol=1e-5)


LEAKS = ["UDI", "Product ID", "TWF", "HDF", "PWF", "OSF", "RNF"]
NUMBERS = ["Air temperature [K]", "Process temperature [K]", "Rotational speed [rpm]"]


@pytest.fixture(scope="module")
def machines(shared_data: Path) -> Table:
    """AI4I 2020: ten thousand rows of a milling machine, with the text column Type."""
    path = shared_data / "ai4i2020" / "ai4i2020.csv"
    frame = pd.read_csv(path, encoding="utf-8-sig")
    label = next(name for name in frame.columns if name.startswith("Machine"))
    train = frame[frame.index % 2 == 0]
    return Table(train.drop(columns=[label, *LEAKS]), train[label], path, label)


def _encoded(encoder: Any, data: Table) -> ColumnTransformer:
    numbers = [name for name in data.train.columns if name != "Type"]
    return ColumnTransformer([("kind", encoder, ["Type"]), ("number", StandardScaler(), numbers)])


@pytest.mark.parametrize(
    ("encoder", "model"),
    [
        (OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=500)),
        (OrdinalEncoder(), HistGradientBoostingClassifier(max_iter=50, random_state=0)),
        (OneHotEncoder(), RandomForestClassifier(30, random_state=0)),
    ],
    ids=["logistic", "hist-gradient-boosting", "forest"],
)
def test_text_column(encoder: Any, model: Any, machines: Table, tmp_path: Path) -> None:
    """A text column goes in as text; labels are equal on all 10,000 rows of the file."""
    pipeline = make_pipeline(_encoded(encoder, machines), model)
    path = fit_and_save(pipeline, machines, tmp_path / "machines.joblib")
    report = run(path, machines, tmp_path, precision=Precision.FP32)
    contract = opened(report).contract
    specs = {spec.name: spec for spec in contract.inputs}
    assert list(machines.train.columns) == list(specs)
    assert specs["Type"].datatype is Datatype.BYTES
    assert specs["Type"].shape == (-1, 1)
    assert any("'UDI'" in message for message in report.messages)
    frame = pd.read_csv(machines.path, encoding="utf-8-sig")
    with load(report.path) as packed:
        inputs = to_inputs(read_dataset(machines.path, label=machines.label), contract)
        got = packed.predict(inputs)["label"]
    assert pipeline.predict(frame[list(machines.train.columns)]).tolist() == got.tolist()


def test_rows_on_a_threshold_get_float64(machines: Table, tmp_path: Path) -> None:
    """Where float32 turns rows at a tree's split points, the variant takes float64 and says so."""
    pipeline = make_pipeline(
        _encoded(OneHotEncoder(), machines), RandomForestClassifier(30, random_state=0)
    )
    path = fit_and_save(pipeline, machines, tmp_path / "machines.joblib")
    report = run(path, machines, tmp_path)
    assert not variant(report, "onnx-fp32").kept
    assert "rows are outside" in (variant(report, "onnx-fp32").reason or "")
    assert variant(report, "onnx-fp64").kept
    assert any("needs float64" in message for message in report.messages)


def test_a_category_that_the_model_refuses_is_the_callers_fault(
    machines: Table, tmp_path: Path
) -> None:
    """As in scikit-learn, a value that the encoder was not fitted to is refused: no failure."""
    pipeline = make_pipeline(_encoded(OneHotEncoder(), machines), LogisticRegression(max_iter=500))
    path = fit_and_save(pipeline, machines, tmp_path / "machines.joblib")
    report = run(path, machines, tmp_path, precision=Precision.FP32)
    with load(report.path) as packed:
        inputs = to_inputs(
            read_dataset(machines.path, label=machines.label), opened(report).contract
        )
        assert packed.predict(inputs)
        expected = "input 'Type' must be one of the categories that the model was fitted to, got "
        inputs["Type"][1:] = "X" * 50
        with pytest.raises(InputError, match=f"^{expected}another$"):
            packed.predict(inputs)
        one = {name: values[1:2] for name, values in inputs.items()}
        with pytest.raises(InputError, match=f"^{expected}'{'X' * 40}'$"):
            packed.predict(one)


def test_columns_by_name_without_text(machines: Table, tmp_path: Path) -> None:
    """A ColumnTransformer by names over numbers is one matrix of the columns that it takes."""
    model = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), NUMBERS)]), LogisticRegression()
    )
    path = fit_and_save(model, machines, tmp_path / "machines.joblib")
    report = run(path, machines, tmp_path, precision=Precision.FP32)
    (spec,) = opened(report).contract.inputs
    assert ("x", tuple(NUMBERS)) == (spec.name, spec.feature_names)
    assert any("the model drops these" in message for message in report.messages)


@pytest.mark.parametrize("suffix", [".joblib", ".pkl", ".skops"])
def test_each_kind_of_file(suffix: str, iris_table: Table, tmp_path: Path) -> None:
    """joblib, pickle and skops files give the same model."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        iris_table.train, iris_table.train_labels
    )
    path = save(model, tmp_path / f"iris{suffix}")
    report = run(path, iris_table, tmp_path, precision=Precision.FP32)
    expected = {".joblib": "joblib file", ".pkl": "pickle file", ".skops": "skops"}[suffix]
    assert expected in report.source
    assert "Pipeline(StandardScaler, LogisticRegression)" in report.source
    assert "iris" == report.name


def test_text_labels(iris_table: Table, tmp_path: Path) -> None:
    """Classes that are text come out as text, and the truth is matched to them."""
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)
    frame = pd.read_csv(iris_table.path)
    frame["target"] = names[frame["target"]]
    data = tmp_path / "iris.csv"
    frame.to_csv(data, index=False)
    model = LogisticRegression(max_iter=500).fit(frame.drop(columns="target"), frame["target"])
    source = Table(None, None, data, "target")
    report = run(save(model, tmp_path / "iris.joblib"), source, tmp_path)
    contract = opened(report).contract
    assert tuple(names) == contract.class_names
    assert Datatype.BYTES is contract.outputs[0].datatype
    parity = variant(report, "onnx-fp32").parity
    assert parity is not None
    assert parity.figures["accuracy"] > 0.9


def test_missing_values_where_the_model_takes_them(tmp_path: Path) -> None:
    """A model that was made for NaN gets NaN on the device too, and answers it the same."""
    source = table("wine", tmp_path)
    holes = source.train.mask(np.random.default_rng(0).random(source.train.shape) < 0.1)
    model = HistGradientBoostingClassifier(max_iter=20).fit(holes, source.train_labels)
    report = run(save(model, tmp_path / "wine.joblib"), source, tmp_path)
    assert Nonfinite.NAN is opened(report).contract.inputs[0].nonfinite


def test_missing_values_in_the_data_and_an_imputer(tmp_path: Path) -> None:
    """NaN in the data goes through a pipeline that fills it in."""
    source = table("wine", tmp_path)
    frame = pd.read_csv(source.path)
    frame.iloc[::7, 0] = np.nan
    frame.to_csv(source.path, index=False)
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    path = save(model.fit(frame.drop(columns="target"), frame["target"]), tmp_path / "wine.joblib")
    report = run(path, source, tmp_path)
    assert Nonfinite.NAN is opened(report).contract.inputs[0].nonfinite
    _check_every_row(model, source, report)


def test_missing_values_where_the_model_takes_none(tmp_path: Path) -> None:
    """NaN that the original refuses is one line that names the column."""
    source = table("wine", tmp_path)
    path = fit_and_save(make_pipeline(StandardScaler(), SVC()), source, tmp_path / "wine.joblib")
    frame = pd.read_csv(source.path)
    frame.iloc[:3, 2] = np.nan
    frame.to_csv(source.path, index=False)
    with pytest.raises(UnfitDataError, match=r"takes no NaN.*'ash' \(3 rows, the first is row 1\)"):
        run(path, source, tmp_path)


def test_without_missing_values_nan_is_refused(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """A model that takes no NaN has it refused by the contract."""
    report = run(digits_model, digits_table, tmp_path)
    assert Nonfinite.REJECT is opened(report).contract.inputs[0].nonfinite


def test_unnamed_columns_get_names(digits_model: Path, digits_table: Table, tmp_path: Path) -> None:
    """Data without column names gives features called x0, x1 and so on."""
    report = run(digits_model, digits_table, tmp_path)
    (spec,) = opened(report).contract.inputs
    assert tuple(f"x{index}" for index in range(64)) == spec.feature_names
    assert (0.0, 16.0) == (spec.minimum, spec.maximum)


def test_columns_by_order(tmp_path: Path) -> None:
    """A model without names takes the data's columns by order, says so, and keeps their names."""
    source = table("iris", tmp_path, names=False)
    path = fit_and_save(LogisticRegression(max_iter=500), source, tmp_path / "iris.joblib")
    report = run(path, source, tmp_path)
    (spec,) = opened(report).contract.inputs
    assert ("sepal length", "sepal width", "petal length", "petal width") == spec.feature_names
    assert any("by order" in message for message in report.messages)


def test_parallel_estimators_stay_in_the_limits(iris_table: Table, tmp_path: Path) -> None:
    """n_jobs works in the child, which may start no processes and write no files."""
    numbers = list(iris_table.train.columns)
    columns = ColumnTransformer(
        [("a", StandardScaler(), numbers[:2]), ("b", StandardScaler(), numbers[2:])], n_jobs=2
    )
    forest = RandomForestClassifier(10, n_jobs=2, random_state=0)
    path = fit_and_save(make_pipeline(columns, forest), iris_table, tmp_path / "iris.joblib")
    assert run(path, iris_table, tmp_path, precision=Precision.FP32).path.exists()


def test_missing_text_is_said(machines: Table, tmp_path: Path) -> None:
    """How many cells of a text column are empty is said."""
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(_encoded(encoder, machines), LogisticRegression(max_iter=500))
    path = fit_and_save(model, machines, tmp_path / "machines.joblib")
    frame = pd.read_csv(machines.path, encoding="utf-8-sig")[:500]
    frame.loc[::50, "Type"] = None
    data = tmp_path / "holes.csv"
    frame.to_csv(data, index=False)
    report = run(path, Table(None, None, data, machines.label), tmp_path, label=None)
    assert any("'Type' has 10 missing values" in message for message in report.messages)


def _codes(count: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    codes = pd.Series(rng.choice(["007", "010", "A"], count), dtype=object)
    frame = pd.DataFrame({"code": codes, "kind": rng.permutation(codes)})
    return frame.mask(rng.random(frame.shape) < 0.2)


ONE_HOT = OneHotEncoder(handle_unknown="ignore")
TEXT_GAPS = {
    "imputer": ColumnTransformer(
        [("t", make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT), ["code"])]
    ),
    "constant": make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), ONE_HOT),
    "a category of its own": OneHotEncoder(),
    "text where others are": ColumnTransformer([("t", OneHotEncoder(), ["code", "kind"])]),
}


@pytest.mark.parametrize("encode", TEXT_GAPS.values(), ids=TEXT_GAPS)
def test_missing_text_that_the_model_knows(encode: Any, tmp_path: Path) -> None:
    """Gaps that an imputer fills, or that are a category, are answered as the original does."""
    frame = _codes()
    target = (frame["code"].isna() | (frame["code"] == "007")).map({True: "yes", False: "no"})
    model = make_pipeline(clone(encode), LogisticRegression()).fit(frame, target)
    data = tmp_path / "rows.csv"
    frame.assign(target=target).to_csv(data, index=False)
    source = Table(None, None, data, "target")
    report = run(save(model, tmp_path / "codes.joblib"), source, tmp_path)
    with load(report.path) as loaded:
        rows = to_inputs(read_dataset(data, label="target"), loaded.contract)
        assert model.predict(frame).tolist() == loaded.predict(rows)["label"].tolist()


def test_voting(iris_table: Table, tmp_path: Path) -> None:
    """A vote converts with the settings that scikit-learn gives it."""
    voters = [("a", LogisticRegression(max_iter=500)), ("b", RandomForestClassifier(5))]
    model = VotingClassifier(voters, voting="soft")
    path = fit_and_save(model, iris_table, tmp_path / "iris.joblib")
    assert 1.0 == variant(run(path, iris_table, tmp_path), "onnx-fp32").parity.value


def test_codes_that_look_like_numbers(tmp_path: Path) -> None:
    """Codes and class names keep their zeros, their case and their gaps."""
    rng = np.random.default_rng(0)
    codes, on = rng.choice(["007", "010", "7"], 300), rng.choice(["true", "False"], 300)
    frame = pd.DataFrame({"code": codes, "on": on, "width": rng.normal(size=300)}, dtype=object)
    target = np.where((frame["code"] == "007") | (frame["on"] == "true"), "01", "02")
    columns = ColumnTransformer([("c", OneHotEncoder(), ["code", "on"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    data = tmp_path / "rows.csv"
    frame.assign(target=target).to_csv(data, index=False)
    source = Table(None, None, data, "target")
    report = run(save(model, tmp_path / "codes.joblib"), source, tmp_path)
    figures = variant(report, "onnx-fp32").parity.figures
    assert 1.0 == figures["accuracy"]


def test_whole_numbers_can_be_categories(tmp_path: Path) -> None:
    """Text categories that look like numbers in the file go in as text."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"code": rng.integers(0, 4, 300), "width": rng.normal(size=300)})
    frame["target"] = (frame["width"] > 0).astype(int)
    data = tmp_path / "rows.csv"
    frame.to_csv(data, index=False)
    columns = ColumnTransformer([("c", OneHotEncoder(), ["code"])], remainder="passthrough")
    features = frame[["code", "width"]].astype({"code": str})
    model = make_pipeline(columns, LogisticRegression()).fit(features, frame["target"])
    source = Table(None, None, data, "target")
    report = run(save(model, tmp_path / "codes.joblib"), source, tmp_path)
    specs = {spec.name: spec.datatype for spec in opened(report).contract.inputs}
    assert {"code": Datatype.BYTES, "width": Datatype.FP32} == specs


def test_grid_search_is_its_best_estimator(iris_table: Table, tmp_path: Path) -> None:
    """A search is converted as the estimator that it found."""
    from sklearn.model_selection import GridSearchCV

    model = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2)
    path = fit_and_save(model, iris_table, tmp_path / "iris.joblib")
    report = run(path, iris_table, tmp_path, precision=Precision.FP32)
    assert "LogisticRegression" in report.source


def test_a_model_of_another_version_says_so(iris_table: Table, tmp_path: Path) -> None:
    """A file of another scikit-learn becomes one readable message."""
    model = LogisticRegression(max_iter=300).fit(iris_table.train, iris_table.train_labels)
    path = save(model, tmp_path / "iris.pkl")
    import sklearn

    mine = sklearn.__version__.encode()
    other = b"1.0.0".ljust(len(mine), b"0")[: len(mine)]
    path.write_bytes(path.read_bytes().replace(mine, other))
    report = run(path, iris_table, tmp_path, precision=Precision.FP32)
    found = [message for message in report.messages if "was saved with scikit-learn" in message]
    assert 1 == len(found)
    assert other.decode() in found[0]


def test_several_regression_targets(tmp_path: Path) -> None:
    """A regressor of two targets gives a matrix."""
    source = digits(tmp_path)
    targets = np.column_stack([source.train_labels, source.train_labels**2]).astype(float)
    model = Ridge().fit(source.train, targets)
    data = tmp_path / "rows.npy"
    np.save(data, source.train[:200])
    path = save(model, tmp_path / "two.joblib")
    report = run(path, Table(None, None, data, ""), tmp_path, label=None)
    assert (-1, 2) == opened(report).contract.outputs[0].shape


UNSUPPORTED = [
    ("not fitted", lambda data: LogisticRegression(), UnsupportedModelError, "not fitted"),
    (
        "no predict",
        lambda data: __import__("sklearn.cluster").cluster.DBSCAN().fit(data.train),
        UnsupportedModelError,
        "DBSCAN has no predict",
    ),
]


@pytest.mark.parametrize(
    ("make", "error", "text"), [item[1:] for item in UNSUPPORTED], ids=[i[0] for i in UNSUPPORTED]
)
def test_what_cannot_be_converted(
    make: Any, error: type[Exception], text: str, iris_table: Table, tmp_path: Path
) -> None:
    """What has no answers for new rows is refused in one line that says why."""
    path = save(make(iris_table), tmp_path / "model.joblib")
    with pytest.raises(error, match=text):
        run(path, iris_table, tmp_path)
