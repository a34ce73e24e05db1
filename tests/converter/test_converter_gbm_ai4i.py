"""Predictive maintenance, from real data: a text column and four kinds of boosted trees."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from edgepack.bundle import open_bundle
from edgepack.converter import ConvertRequest, Precision, convert
from edgepack.runtime import load
from edgepack.runtime.tensors import DTYPES

pandas = pytest.importorskip("pandas")

NUMBERS = [
    "Air temperature [K]",
    "Process temperature [K]",
    "Rotational speed [rpm]",
    "Torque [Nm]",
    "Tool wear [min]",
]
KINDS = ("histogram", "xgboost", "lightgbm", "catboost")


def _boosted(kind: str) -> Any:
    if kind == "histogram":
        return HistGradientBoostingClassifier(max_iter=60, random_state=0)
    library = pytest.importorskip(kind)
    if kind == "xgboost":
        return library.XGBClassifier(n_estimators=60, n_jobs=1)
    if kind == "lightgbm":
        return library.LGBMClassifier(n_estimators=60, n_jobs=1, verbose=-1)
    return library.CatBoostClassifier(
        n_estimators=60, thread_count=1, verbose=0, allow_writing_files=False
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("encoder", "scaler", "part"),
    [
        (OrdinalEncoder(), "passthrough", 1),
        (OneHotEncoder(handle_unknown="ignore"), StandardScaler(), 3),
    ],
    ids=["ordinal", "one-hot, scaled, trained on a part"],
)
def test_labels_of_every_row(
    kind: str, encoder: Any, scaler: Any, part: int, shared_data: Path, tmp_path: Path
) -> None:
    """Every one of the 10,000 rows gets the label that the pipeline gives it.

    A model that is trained on a part of the rows has thresholds where the others lie; a scaler
    moves them to where float32 is one step off.
    """
    data = shared_data / "ai4i2020" / "ai4i2020.csv"
    frame = pandas.read_csv(data, encoding="utf-8-sig")
    rows, truth = frame[["Type", *NUMBERS]], frame["Machine_failure"]
    columns = ColumnTransformer([("type", encoder, ["Type"]), ("numbers", scaler, NUMBERS)])
    pipeline = make_pipeline(columns, _boosted(kind))
    train = np.arange(len(rows)) % part == 0
    pipeline.fit(rows[train], truth[train])
    joblib.dump(pipeline, tmp_path / "model.joblib")
    report = convert(
        ConvertRequest(
            model=tmp_path / "model.joblib",
            data=data,
            label="Machine_failure",
            output=tmp_path / "out",
            precision=Precision.FP32,
        )
    )
    with load(open_bundle(report.path)) as model:
        assert ["Type", *NUMBERS] == [spec.name for spec in model.contract.inputs]
        inputs = {
            spec.name: rows[spec.name].to_numpy().astype(DTYPES[spec.datatype])[:, None]
            for spec in model.contract.inputs
        }
        answers = model.predict(inputs)
    assert pipeline.predict(rows).tolist() == answers["label"].tolist()
    assert 10_000 == len(answers["label"])
    np.testing.assert_allclose(
        answers["probabilities"], pipeline.predict_proba(rows), rtol=1e-4, atol=1e-6
    )
