"""Text columns of models that hold pipelines, and of several transformers side by side."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.svm import LinearSVC
from sklearn_parity import both_answers

from edgepack.converter.errors import UnsupportedModelError

ROWS = 300


def _frame() -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "site": random.choice(["Köln", "Graz", "Ulm"], ROWS),
            "load": random.gamma(2, 3, ROWS),
            "grade": random.choice(["A", "B"], ROWS),
        }
    )
    truth = np.where(frame.load + 4 * (frame.site == "Graz") > 8, "high", "low")
    return frame, truth


def _encoded(encoder: Any, model: Any) -> Any:
    columns = make_column_transformer((encoder, ["site", "grade"]), remainder=StandardScaler())
    return make_pipeline(columns, model)


HOT, NUMBER = OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()
HOLDERS: dict[str, Callable[[], Any]] = {
    "calibrated": lambda: CalibratedClassifierCV(_encoded(HOT, LinearSVC()), cv=2),
    "voting": lambda: VotingClassifier(
        [
            ("a", _encoded(HOT, LogisticRegression())),
            ("b", _encoded(TargetEncoder(), LogisticRegression())),
        ],
        voting="soft",
    ),
    "stacked": lambda: StackingClassifier(
        [
            ("a", _encoded(NUMBER, RandomForestClassifier(10, random_state=0))),
            ("b", _encoded(HOT, LogisticRegression())),
        ],
        cv=2,
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_held_pipelines(holder: str) -> None:
    """Each pipeline inside encodes the text as it learned to."""
    frame, truth = _frame()
    model = HOLDERS[holder]().fit(frame, truth)
    expected, found = both_answers(model, frame)
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)


def test_unknown_text_inside() -> None:
    """A text that no encoder knows is unknown to each of them."""
    frame, truth = _frame()
    model = HOLDERS["calibrated"]().fit(frame, truth)
    asked = frame.assign(site="Bonn")
    expected, found = both_answers(model, asked)
    assert expected["label"].tolist() == found["label"].tolist()


def test_held_words() -> None:
    """A calibrated model of words takes texts."""
    frame, truth = _frame()
    words = (frame.site + " läuft " + frame.grade * 3).astype(object)
    model = CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2)
    expected, found = both_answers(model.fit(words, truth), words.to_frame())
    assert expected["label"].tolist() == found["label"].tolist()


def test_other_steps_of_text_inside_are_refused() -> None:
    """What is no encoder, but sees text inside such a model, is refused by its name."""
    frame, truth = _frame()
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), HOT)
    model = CalibratedClassifierCV(_encoded(filled, LinearSVC()), cv=2).fit(frame, truth)
    with pytest.raises(UnsupportedModelError, match="SimpleImputer of text has no ONNX form"):
        both_answers(model, frame)


def test_side_by_side() -> None:
    """ColumnTransformers in a FeatureUnion each find their columns."""
    frame, truth = _frame()
    union = FeatureUnion(
        [
            ("hot", make_column_transformer((HOT, ["site"]), ("drop", ["load"]))),
            ("scaled", make_column_transformer((StandardScaler(), ["load"]))),
        ]
    )
    model = make_pipeline("passthrough", union, LogisticRegression()).fit(frame, truth)
    expected, found = both_answers(model, frame[["site", "load"]])
    assert expected["label"].tolist() == found["label"].tolist()


def test_gaps_with_indicators() -> None:
    """An imputer's indicators are columns of their own, also in float32."""
    frame, truth = _frame()
    rows = frame[["load"]].assign(temp=np.where(frame.load > 9, np.nan, 1.0))
    model = make_pipeline(
        SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression()
    ).fit(rows, truth)
    for precision in ("fp32", "fp64"):
        expected, found = both_answers(model, rows, precision)
        assert expected["label"].tolist() == found["label"].tolist()
