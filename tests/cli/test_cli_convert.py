"""convert, as a person calls it; what it does to models is tested elsewhere."""

import csv

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model file and its data."""
    folder = tmp_path_factory.mktemp("trained")
    x, y = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(x, y), folder / "iris.joblib")
    with (folder / "iris.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", "b", "c", "d", "kind"])
        rows.writerows([*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True))
    return folder / "iris.joblib", folder / "iris.csv"


def test_without_flags_it_just_works(edgepack, trained, tmp_path, monkeypatch):
    """Name, version and development keys are found or made, and said; the next is a patch more."""
    monkeypatch.chdir(tmp_path)
    model, data = trained
    first = edgepack("convert", model, "--data", data, "--label", "kind")
    assert 0 == first.code
    assert "iris-0.1.0.edgepack" in first.out
    assert str(tmp_path / "config-home" / "edgepack" / "keys") in first.out
    assert "onnx-fp32" in first.out
    second = edgepack("convert", model, "--data", data, "--label", "kind", "--json").document
    assert ("iris", "0.1.1") == (second["name"], second["version"])
    assert open_bundle(tmp_path / "iris-0.1.1.edgepack").digest == second["digest"]
    assert 0 == edgepack("verify", "iris-0.1.1.edgepack").code


def test_flags_reach_the_conversion(edgepack, trained, tmp_path, keys):
    """Name, version, output folder, keys, task and precision are what was asked for."""
    model, data = trained
    ended = edgepack(
        *("convert", model, "--data", data, "--label", "kind", "-o", tmp_path / "out"),
        *("--name", "flowers", "--version", "2.0.0-rc.1", "--keys", keys),
        *("--task", "classification", "--precision", "fp32", "--max-drop", "0.05", "--json"),
    )
    path = tmp_path / "out" / "flowers-2.0.0-rc.1.edgepack"
    assert (0, str(path)) == (ended.code, ended.document["path"])
    contract = open_bundle(path).contract
    assert (Task.CLASSIFICATION, 0.05) == (contract.task, contract.tolerances.max_drop)
    assert 0 == edgepack("verify", path, "--root", keys / "root.json").code


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--version", "one"], 2),
        (["--name", "a/b"], 2),
        (["--label", "absent"], 3),
        (["--keys", "absent"], 5),
        (["--precision", "int4"], 2),
    ],
)
def test_what_cannot_be_done_is_one_line(edgepack, trained, tmp_path, monkeypatch, flags, code):
    """Errors have their codes and leave no bundle behind."""
    monkeypatch.chdir(tmp_path)
    model, data = trained
    base = [] if "--label" in flags else ["--label", "kind"]
    ended = edgepack("convert", model, "--data", data, *base, *flags)
    assert code == ended.code
    assert ": error: " in ended.err.splitlines()[0]
    assert [] == list(tmp_path.glob("*.edgepack"))
