"""Calibration by isotonic steps, which show the last digits of what they are given."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn_parity import both_answers


def _lightgbm() -> Any:
    library = pytest.importorskip("lightgbm")
    return library.LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1)


def _catboost() -> Any:
    library = pytest.importorskip("catboost")
    return library.CatBoostClassifier(
        n_estimators=60, verbose=0, thread_count=1, allow_writing_files=False
    )


@pytest.mark.parametrize("make", [_lightgbm, _catboost])
@pytest.mark.parametrize("classes", [2, 3])
def test_isotonic(make: Any, classes: int) -> None:
    """Probabilities of boosted trees behind isotonic steps are the original's in float64."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(600, 4)).round(1), columns=list("abcd"))
    truth = np.digitize(frame.a + frame.b + random.normal(size=600), [0.0, 1.0][: classes - 1])
    model = CalibratedClassifierCV(make(), method="isotonic", cv=2).fit(frame, truth)
    expected, found = both_answers(model, frame)
    assert expected["label"].tolist() == found["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-9)
