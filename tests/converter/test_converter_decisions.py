"""The pure decisions of a conversion: names, versions, rows, truths, int8."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.contract import Datatype, Task, TensorSpec
from edgepack.bundle.contract_rules import is_name
from edgepack.converter import RequestError, UnfitDataError
from edgepack.converter.errors import one_line
from edgepack.converter.match import nan_columns, nan_probe
from edgepack.converter.naming import model_name, model_version
from edgepack.converter.search.plans import nothing_to_quantize
from edgepack.converter.sources.source import FileSummary
from edgepack.converter.split import split_rows
from edgepack.converter.truth import fit_truth, looks_like_classes

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pump.joblib", "pump"),
        ("pump model v2.joblib.gz", "pump-model-v2"),
        ("läufer.pkl", "l-ufer"),
        ("....pkl", "model"),
        ("a" * 90 + ".onnx", "a" * 64),
        ("my.model.skops", "my-model"),
    ],
)
def test_a_name_from_the_file(file: str, expected: str) -> None:
    """The name is the file's stem, made fit."""
    assert expected == model_name(None, Path(file))


@given(st.text(min_size=1))
def test_every_file_name_gives_a_name(file: str) -> None:
    """Whatever a file is called, its model's name is valid."""
    assert is_name(model_name(None, Path(file.replace("/", "").replace("\0", "") or "x")))


def test_a_bad_name_is_refused() -> None:
    """A name that was given is taken as it is or refused."""
    assert "pump_7" == model_name("pump_7", Path("x.pkl"))
    with pytest.raises(RequestError, match="name must be"):
        model_name("pump model", Path("x.pkl"))


def test_versions_count_on(tmp_path: Path) -> None:
    """The next patch after the highest version of that very name."""
    assert "0.1.0" == model_version(None, "pump", tmp_path / "nowhere")
    for name in ("pump-0.9.12", "pump-0.10.1", "pump-fast-7.0.0", "pump-x", "pumps-8.0.0"):
        (tmp_path / f"{name}.edgepack").touch()
    assert "0.10.2" == model_version(None, "pump", tmp_path)
    assert "7.0.1" == model_version(None, "pump-fast", tmp_path)
    with pytest.raises(RequestError, match="SemVer"):
        model_version("1.0", "pump", tmp_path)


@given(st.integers(64, 30_000), st.integers(1, 10**6))
def test_no_row_is_used_twice(rows: int, row_bytes: int) -> None:
    """Calibration and held-out rows never meet; golden samples are 64 to 256 of the latter."""
    split = split_rows(rows, digest=DIGEST, row_bytes=row_bytes)
    calibration, held_out = set(split.calibration.tolist()), set(split.held_out.tolist())
    assert not calibration & held_out
    assert calibration | held_out <= set(range(rows))
    assert 64 <= len(held_out) == len(split.held_out)
    assert 64 <= len(split.golden) <= min(256, len(held_out))
    assert split.golden.max() < len(held_out)


def test_the_split_depends_on_the_data_alone() -> None:
    """The same digest gives the same rows, another digest others."""
    one, same = (split_rows(500, digest=DIGEST, row_bytes=8) for _ in range(2))
    other = split_rows(500, digest="sha256:" + "f" * 64, row_bytes=8)
    assert one.held_out.tolist() == same.held_out.tolist()
    assert one.held_out.tolist() != other.held_out.tolist()


def test_few_rows_leave_none_for_calibration() -> None:
    """Below 80 rows all are held out; below 64 there is no conversion."""
    assert 0 == len(split_rows(70, digest=DIGEST, row_bytes=8).calibration)
    assert 16 == len(split_rows(80, digest=DIGEST, row_bytes=8).calibration)
    with pytest.raises(UnfitDataError, match="at least 64 rows"):
        split_rows(63, digest=DIGEST, row_bytes=8)


LABELS = {"label": np.array([0, 1, 2])}
TEXTS = {"label": np.array(["a", "b"], dtype=object)}


@pytest.mark.parametrize(
    ("truth", "outputs", "names", "expected"),
    [
        (np.array([0, 1, 2, 0]), LABELS, ("0", "1", "2"), [0, 1, 2, 0]),
        (np.array([0.0, 1.0]), LABELS, ("0", "1"), [0, 1]),
        (np.array([True, False]), LABELS, ("0", "1"), [1, 0]),
        (np.array(["1", "0"], dtype=object), LABELS, ("0", "1"), [1, 0]),
        (np.array(["a", "b"], dtype=object), TEXTS, ("a", "b"), ["a", "b"]),
        (np.array([1, 2]), TEXTS, ("1", "2"), ["1", "2"]),
        (np.array([1.0, 2.0]), TEXTS, ("1", "2"), ["1", "2"]),
    ],
)
def test_truth_becomes_the_models_kind(
    truth: np.ndarray, outputs: dict, names: tuple[str, ...], expected: list
) -> None:
    """Truths are cast to what the model gives."""
    found, messages = fit_truth(truth, Task.CLASSIFICATION, outputs, names)
    assert found is not None
    assert expected == found.tolist()
    assert () == messages


def test_truth_of_a_regression() -> None:
    """Numbers stay numbers; text and another shape are refused."""
    value = {"value": np.zeros(2)}
    found, _ = fit_truth(np.array([1, 2]), Task.REGRESSION, value, ())
    assert found is not None
    assert [1.0, 2.0] == found.tolist()
    with pytest.raises(UnfitDataError, match="must be numeric"):
        fit_truth(np.array(["a", "b"], dtype=object), Task.REGRESSION, value, ())
    with pytest.raises(UnfitDataError, match="shape"):
        fit_truth(np.zeros((2, 3)), Task.REGRESSION, value, ())


def test_truth_without_use_is_said() -> None:
    """A clusterer has no truth, and the report says that the label is not used."""
    found, messages = fit_truth(np.array([1, 2]), Task.CLUSTERING, LABELS, ())
    assert found is None
    assert "not used" in messages[0]


def test_classes_are_told_from_targets() -> None:
    """Whole numbers below the number of columns are classes, others are targets."""
    assert looks_like_classes(np.array([0, 1, 2]), 3)
    assert not looks_like_classes(np.array([0, 1, 3]), 3)
    assert not looks_like_classes(np.array([0.5, 1.0]), 3)
    assert not looks_like_classes(np.array([0, 1]), 1)


@pytest.mark.parametrize(
    ("operators", "weights", "expected"),
    [
        (("ai.onnx.ml::TreeEnsembleClassifier",), 0, "tree ensemble"),
        (("ai.onnx.ml::SVMRegressor",), 0, "support vector machine"),
        (("ai.onnx.ml::LinearClassifier",), 0, "linear model"),
        (("ai.onnx::Add",), 0, "no MatMul, Gemm or Conv"),
        (("ai.onnx::MatMul",), 100, "100 weights"),
    ],
)
def test_why_there_is_nothing_to_quantize(
    operators: tuple[str, ...], weights: int, expected: str
) -> None:
    """What int8 would not help is told by its kind."""
    summary = FileSummary(opsets={"": 17}, operators=operators, weights=weights, ir_version=8)
    assert expected in (nothing_to_quantize(summary) or "")


def test_a_network_can_be_quantized() -> None:
    """Enough weights in matrix products are worth a try."""
    summary = FileSummary(
        opsets={"": 17}, operators=("ai.onnx::MatMul",), weights=5000, ir_version=8
    )
    assert nothing_to_quantize(summary) is None


def test_nan_is_looked_for_by_column() -> None:
    """Columns with NaN are named with their count, and the probe has one NaN a row."""
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), feature_names=("a", "b"))
    rows = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 4.0]])
    assert ["'b' (2 rows, the first is row 1)"] == nan_columns([spec], {"x": rows})
    probe = nan_probe([spec], {"x": np.ones((3, 2))})
    assert probe is not None
    assert [[True, False], [False, True]] == np.isnan(probe["x"]).tolist()


def test_foreign_errors_lose_their_colours() -> None:
    """What a framework wrote for a terminal is one plain line."""
    assert "needs it" == one_line(ValueError("\x1b[1mneeds\n  it\x1b[0m"))
