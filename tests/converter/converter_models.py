"""Trained models and their data as files, made by code, for the converter's tests."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn import datasets

from edgepack.bundle import Bundle, open_bundle
from edgepack.converter import ConvertReport, ConvertRequest, VariantReport, convert


@dataclass(frozen=True)
class Table:
    """Rows to train on and a file with all of them."""

    train: Any
    train_labels: Any
    path: Path
    label: str


TABLES: dict[str, Callable[[], Any]] = {
    "breast": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}


def table(name: str, folder: Path, *, names: bool = True) -> Table:
    """One of scikit-learn's own data sets as CSV; every third row is left out of the training."""
    loaded = TABLES[name]()
    columns = [column.replace(" (cm)", "") for column in loaded.feature_names]
    frame = pd.DataFrame(loaded.data, columns=columns)
    frame["target"] = loaded.target
    path = folder / f"{name}.csv"
    frame.to_csv(path, index=False)
    train = frame[frame.index % 3 != 0]
    features = train[columns]
    return Table(features if names else features.to_numpy(), train["target"], path, "target")


def digits(folder: Path) -> Table:
    """The handwritten digits as npz, without names; the first 1,200 rows are for training."""
    loaded = datasets.load_digits()
    path = folder / "digits.npz"
    np.savez(path, X=loaded.data[1200:], y=loaded.target[1200:])
    return Table(loaded.data[:1200], loaded.target[:1200], path, "y")


def save(model: Any, path: Path) -> Path:
    """Save a model the way its suffix says."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(model))
    elif path.suffix == ".skops":
        import skops.io

        skops.io.dump(model, path)
    else:
        joblib.dump(model, path)
    return path


def fit_and_save(model: Any, data: Table, path: Path) -> Path:
    """Train on the table's training rows and save."""
    return save(model.fit(data.train, data.train_labels), path)


def run(model: Path, data: Table, folder: Path, **more: Any) -> ConvertReport:
    """Convert into a folder, with the table's label."""
    label = None if data.path.suffix == ".npz" else data.label
    request = ConvertRequest(
        **{"model": model, "data": data.path, "label": label, "output": folder / "out"} | more
    )
    return convert(request)


def variant(report: ConvertReport, name: str) -> VariantReport:
    """The report on one variant, or on the first candidate for it where none is kept."""
    named = [item for item in report.variants if item.name == name]
    return named[0] if named else next(v for v in report.variants if v.name.startswith(f"{name}-"))


def opened(report: ConvertReport) -> Bundle:
    """The bundle that a report is on."""
    return open_bundle(report.path)
