"""Fixtures of the converter's tests."""

from pathlib import Path

import pytest
from converter_models import Table, digits, fit_and_save, table
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models and data that several tests use."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def digits_table(models: Path) -> Table:
    """The handwritten digits."""
    return digits(models)


@pytest.fixture(scope="session")
def iris_table(models: Path) -> Table:
    """The irises, as CSV with column names."""
    return table("iris", models)


@pytest.fixture(scope="session")
def digits_model(models: Path, digits_table: Table) -> Path:
    """A scaler and a logistic regression on the digits, as joblib."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return fit_and_save(model, digits_table, models / "digits.joblib")


@pytest.fixture(scope="session")
def digits_mlp(models: Path, digits_table: Table) -> Path:
    """A scaler and a small network on the digits, as joblib."""
    model = make_pipeline(StandardScaler(), MLPClassifier((96, 48), max_iter=60, random_state=0))
    return fit_and_save(model, digits_table, models / "digits_mlp.joblib")


@pytest.fixture(scope="session")
def iris_model(models: Path, iris_table: Table) -> Path:
    """A logistic regression on the irises, as pickle."""
    return fit_and_save(LogisticRegression(max_iter=500), iris_table, models / "iris.pkl")
