"""Models that take pandas columns of the type category, alone and inside others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_parity import both_answers

from edgepack.converter.errors import UnsupportedModelError

ROWS = 400
SITES = ["Köln", "Graz", "a,b", ""]


def _frame() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "load": random.gamma(2, 3, ROWS),
            "site": random.choice(SITES[:3], ROWS),
            "line": random.choice([3, 5, 9], ROWS),
        }
    )


def _categories(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"site": "category", "line": "category"})


def _histogram() -> Any:
    return HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype")


def _xgboost() -> Any:
    library = pytest.importorskip("xgboost")
    return library.XGBClassifier(n_estimators=20, enable_categorical=True, n_jobs=1)


def _lightgbm() -> Any:
    library = pytest.importorskip("lightgbm")
    return library.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1, min_child_samples=5)


MAKERS = [_histogram, _xgboost, _lightgbm]
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda model: model,
    "in a pipeline": make_pipeline,
    "calibrated": lambda model: CalibratedClassifierCV(model, cv=2),
    "voting": lambda model: VotingClassifier([("a", model), ("b", model)], voting="soft"),
    "stacked": lambda model: StackingClassifier([("a", model)], LogisticRegression(), cv=2),
}


@pytest.mark.parametrize(
    ("make", "holder"),
    [
        *((make, "alone") for make in MAKERS),
        (_histogram, "stacked"),
        (_xgboost, "voting"),
        (_lightgbm, "calibrated"),
        (_lightgbm, "in a pipeline"),
    ],
)
def test_labels(make: Callable[[], Any], holder: str) -> None:
    """Texts and numbers as categories, unknown and missing ones too, get the original's labels."""
    frame = _frame()
    truth = (frame.load + 4 * (frame.site == "Graz") + 5 * (frame.line == 5) > 8).astype(int)
    model = HOLDERS[holder](make()).fit(_categories(frame), truth)
    asked = frame.copy()
    asked.loc[:20, "site"] = "Ulm"
    asked.loc[20:40, "site"] = ""
    asked.loc[30:50, "line"] = 7
    expected, found = both_answers(model, asked)
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(
        found["probabilities"], expected["probabilities"], rtol=1e-5, atol=1e-6
    )


def test_names_with_spaces() -> None:
    """LightGBM's own names of columns, which have no spaces, do not hide the data's."""
    library = pytest.importorskip("lightgbm")
    frame = _frame().rename(columns={"load": "the load", "site": "the site"})
    truth = (frame["the load"] > 6).astype(int)
    given = frame.astype({"the site": "category"})
    model = library.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(given, truth)
    expected, found = both_answers(model, frame)
    assert expected["label"].tolist() == found["label"].tolist()


def test_different_categories() -> None:
    """Members of which one has categories and another does not are refused in one line."""
    frame = _frame()
    given = frame.astype({"line": "category"})[["load", "line"]]
    truth = (frame.load > 6).astype(int)
    library = pytest.importorskip("lightgbm")
    members = [
        ("a", library.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1)),
        ("b", make_pipeline(StandardScaler(), LogisticRegression())),
    ]
    model = VotingClassifier(members).fit(given, truth)
    with pytest.raises(UnsupportedModelError, match="each numbers other categories"):
        both_answers(model, frame[["load", "line"]])
