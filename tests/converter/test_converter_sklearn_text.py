"""Text models, text categories and what cannot be: through the whole conversion."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from converter_models import opened, save
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from edgepack.converter import ConvertReport, ConvertRequest, Precision, convert
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.estimator import SklearnModel
from edgepack.runtime import load
from edgepack.runtime.dataset import read_dataset
from edgepack.runtime.dataset_inputs import to_inputs

ROWS = 240


def _pack(model: Any, frame: pd.DataFrame, folder: Path) -> ConvertReport:
    data = folder / "rows.csv"
    frame.to_csv(data, index=False)
    path = save(model, folder / "model.joblib")
    return convert(
        ConvertRequest(
            model=path, data=data, label="target", output=folder / "out", precision=Precision.FP32
        )
    )


def _answers(report: ConvertReport, data: Path) -> list[Any]:
    contract = opened(report).contract
    with load(report.path) as packed:
        found: list[Any] = packed.predict(to_inputs(read_dataset(data, label="target"), contract))[
            "label"
        ].tolist()
    return found


@pytest.mark.parametrize("as_column", [False, True], ids=["texts", "column"])
def test_words(as_column: bool, tmp_path: Path) -> None:
    """A model of words answers texts as the original does, on a machine without locales."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"text": random.choice(["Good SUN day", "bad rain", "cold wind"], ROWS)})
    frame["target"] = frame.text.str.startswith("Good").astype(int)
    if as_column:
        words: Any = ColumnTransformer([("words", TfidfVectorizer(), "text")])
        model = make_pipeline(words, LogisticRegression()).fit(frame[["text"]], frame.target)
        expected = model.predict(frame[["text"]])
    else:
        model = make_pipeline(TfidfVectorizer(), LogisticRegression())
        model.fit(frame.text, frame.target)
        expected = model.predict(frame.text)
    report = _pack(model, frame, tmp_path)
    assert expected.tolist() == _answers(report, tmp_path / "rows.csv")


def test_categories_that_look_like_numbers(tmp_path: Path) -> None:
    """A text category 1.50 is what the file writes, not the number."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"size": random.choice(["1.50", "2.00", "10"], ROWS), "x": random.normal(size=ROWS)}
    )
    frame["target"] = ((frame["size"] == "1.50") | (frame.x > 1)).astype(int)
    columns = ColumnTransformer(
        [("size", OneHotEncoder(), ["size"]), ("x", StandardScaler(), ["x"])]
    )
    model = make_pipeline(columns, LogisticRegression())
    model.fit(frame[["size", "x"]], frame.target)
    report = _pack(model, frame, tmp_path)
    expected = model.predict(frame[["size", "x"]]).tolist()
    assert expected == _answers(report, tmp_path / "rows.csv")


def test_float64_inside_is_not_quantized(tmp_path: Path) -> None:
    """Distances are computed in float64 also where rows come as float32; int8 leaves them so."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, 12)), columns=[f"c{n}" for n in range(12)])
    rows = frame.copy()
    frame["target"] = (frame.c0 > 0).astype(int)
    model = KNeighborsClassifier().fit(rows, frame.target)
    data = tmp_path / "rows.csv"
    frame.to_csv(data, index=False)
    path = save(model, tmp_path / "model.joblib")
    report = convert(ConvertRequest(model=path, data=data, label="target", output=tmp_path / "out"))
    assert ["onnx-fp32"] == [item.name for item in report.variants if item.kept]
    assert model.predict(rows).tolist() == _answers(report, data)


def _halved(values: Any) -> Any:
    return values / 2


def test_own_functions_are_refused(tmp_path: Path) -> None:
    """A function that is not numpy's is refused by its name."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    steps = [("halved", FunctionTransformer(_halved)), ("model", LogisticRegression())]
    model = SklearnModel(Pipeline(steps).fit(rows, rows[:, 0] > 0))
    from edgepack.bundle.contract import Datatype, Task, TensorSpec
    from edgepack.converter.sources.source import ExportWish

    wish = ExportWish(
        task=Task.CLASSIFICATION,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2)),),
        outputs=("label",),
        precision="fp32",
    )
    with pytest.raises(UnsupportedModelError, match="'_halved' cannot be exported"):
        model.export(wish)
