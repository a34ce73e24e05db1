"""Two versions of a real model: handwritten digits (8 x 8 pixels), as scikit-learn ships them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training left on disk.

    Attributes:
        first: A linear model, joblib.
        second: A small neural network, joblib.
        data: CSV of held-out rows for conversion, with the truth as its last column.
        x: Rows that neither training nor conversion saw, float32 (N, 64), 0..16.
        y: Their digits, (N,).
    """

    first: Path
    second: Path
    data: Path
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]


def train(folder: Path, *, label: str) -> Trained:
    """Train both versions and write models and data into `folder`.

    Args:
        folder: An existing folder.
        label: Name of the truth's column in the CSV.
    """
    digits = load_digits()
    x_train, x_rest, y_train, y_rest = train_test_split(
        digits.data, digits.target, test_size=800, random_state=_SEED, stratify=digits.target
    )
    x_data, x_stream, y_data, y_stream = train_test_split(
        x_rest, y_rest, test_size=300, random_state=_SEED, stratify=y_rest
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    network = make_pipeline(
        StandardScaler(), MLPClassifier((64, 32), max_iter=300, random_state=_SEED)
    )
    paths = []
    for name, model in (("first", linear), ("second", network)):
        path = folder / f"{name}.joblib"
        joblib.dump(model.fit(x_train, y_train), path)
        paths.append(path)
    data = folder / "digits.csv"
    with data.open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow([*digits.feature_names, label])
        rows.writerows([*x.tolist(), int(y)] for x, y in zip(x_data, y_data, strict=True))
    return Trained(
        first=paths[0],
        second=paths[1],
        data=data,
        x=x_stream.astype(np.float32),
        y=y_stream.astype(np.int64),
    )
