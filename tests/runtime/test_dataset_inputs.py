"""Matching rows to a model's inputs, by name and by order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.dataset_inputs import arrange, made_up_names
from edgepack.runtime.errors import DatasetError

MATRIX = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), feature_names=("a", "b"))
UNNAMED = TensorSpec(
    name="x", datatype=Datatype.FP32, shape=(-1, 2), feature_names=made_up_names("x", 2)
)
COLUMNS = (
    TensorSpec(name="kind", datatype=Datatype.BYTES, shape=(-1, 1), feature_names=("kind",)),
    TensorSpec(name="a", datatype=Datatype.FP32, shape=(-1, 1), feature_names=("a",)),
)


def rows(named: bool = True, **arrays: object) -> Dataset:
    found = {
        name: np.array(values, dtype=object if _is_text(values) else None)
        for name, values in arrays.items()
    }
    return Dataset(
        arrays=found,
        named=named,
        truth=None,
        rows=len(next(iter(found.values()))),
        digest="sha256:0",
        format="test",
    )


def _is_text(values: object) -> bool:
    return any(isinstance(item, str) for item in np.array(values, dtype=object).ravel())


def test_columns_by_name_in_the_models_order() -> None:
    """The file's order does not matter, and extra columns are ignored with a word."""
    found = arrange(rows(b=[1, 2], extra=[0, 0], a=[3.0, 4.0]), [MATRIX])
    assert [[3, 1], [4, 2]] == found.inputs["x"].tolist()
    assert np.float32 == found.inputs["x"].dtype
    assert ("columns that the model does not take are ignored: 'extra'",) == found.messages


def test_one_input_a_column() -> None:
    """Text and numbers go into inputs of their own."""
    found = arrange(rows(a=[1, 2], kind=["M", "L"]), COLUMNS)
    assert [["M"], ["L"]] == found.inputs["kind"].tolist()
    assert [[1.0], [2.0]] == found.inputs["a"].tolist()


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (rows(a=[1], c=[2]), "misses 1 of the model's columns: 'b'; it has 'a', 'c'"),
        (rows(p=[1], q=[2]), "misses 2 of the model's columns: 'a', 'b'"),
        (rows(a=[1, 2], b=["1", "M"]), "column 'b' must be numeric, got text 'M' in row 2"),
        (rows(x=[[1, 2, 3]]), r"must have shape \[-1, 2\], got \[1, 3\]; is one of"),
    ],
)
def test_what_does_not_match(dataset: Dataset, text: str) -> None:
    """A column that is missing or of another kind is named."""
    with pytest.raises(DatasetError, match=text):
        arrange(dataset, [MATRIX])


def test_a_matrix_goes_by_order() -> None:
    """An array without column names fills the model's columns in order."""
    found = arrange(rows(named=False, x=[[1, 2], [3, 4]]), [MATRIX])
    assert [[1, 2], [3, 4]] == found.inputs["x"].tolist()
    one, two = (
        TensorSpec(name=name, datatype=Datatype.FP32, shape=(-1, 1), feature_names=(name,))
        for name in ("a", "b")
    )
    found = arrange(rows(named=False, x=[[1, 2], [3, 4]]), [one, two])
    assert {"a": [[1], [3]], "b": [[2], [4]]} == {k: v.tolist() for k, v in found.inputs.items()}


def test_a_table_goes_by_order_where_the_model_has_no_names() -> None:
    """Made-up names stand for no names; the report says that the order was taken."""
    found = arrange(rows(p=[1, 2], q=[3, 4]), [UNNAMED])
    assert [[1, 3], [2, 4]] == found.inputs["x"].tolist()
    assert "by order" in found.messages[0]
    with pytest.raises(DatasetError, match="must have 2 columns for the model, got 3; is one of"):
        arrange(rows(p=[1], q=[2], y=[3]), [UNNAMED])


def test_the_one_tensor_among_columns() -> None:
    """Beside a tensor, single columns (a subject, a time) are extra."""
    spec = TensorSpec(name="signal", datatype=Datatype.FP32, shape=(-1, 2, 3))
    found = arrange(rows(windows=np.zeros((4, 2, 3)).tolist(), subject=[1, 1, 2, 2]), [spec])
    assert (4, 2, 3) == found.inputs["signal"].shape
    assert "'subject'" in found.messages[0]


def test_flat_rows_take_the_models_shape() -> None:
    """The same number of values a row, only flattened, is taken."""
    spec = TensorSpec(name="image", datatype=Datatype.FP32, shape=(-1, 1, 2, 2))
    found = arrange(rows(named=False, x=[[1, 2, 3, 4]]), [spec])
    assert [[[[1, 2], [3, 4]]]] == found.inputs["image"].tolist()
    found = arrange(rows(named=False, x=[[[1, 2], [3, 4]]]), [spec])
    assert [[[[1, 2], [3, 4]]]] == found.inputs["image"].tolist()


def test_text_inputs_get_what_the_file_writes() -> None:
    """A post code keeps its zeros where the model takes text, by name and by order."""
    data = replace(rows(zip=[7, 10], a=[1, 2]), texts={"zip": np.array(["007", "10"], object)})
    text = TensorSpec(name="zip", datatype=Datatype.BYTES, shape=(-1, 1), feature_names=("zip",))
    number = TensorSpec(name="a", datatype=Datatype.FP32, shape=(-1, 1), feature_names=("a",))
    found = arrange(data, [text, number]).inputs
    assert [["007"], ["10"]] == found["zip"].tolist()
    assert [[1.0], [2.0]] == found["a"].tolist()
    found = arrange(data, [replace(number, name="zip", feature_names=("zip",))]).inputs
    assert [[7.0], [10.0]] == found["zip"].tolist()
    both = replace(UNNAMED, datatype=Datatype.BYTES)
    assert [["007", "1"], ["10", "2"]] == arrange(data, [both]).inputs["x"].tolist()


def test_columns_are_dealt_to_several_inputs() -> None:
    """Without names each input takes as many columns as it has, from left to right."""
    wide = TensorSpec(name="a", datatype=Datatype.FP32, shape=(-1, 2))
    narrow = TensorSpec(name="b", datatype=Datatype.FP32, shape=(-1, 1))
    image = TensorSpec(name="c", datatype=Datatype.FP32, shape=(-1, 1, 2))
    for data in (
        rows(named=False, x=[[1, 2, 3, 4, 5]]),
        rows(named=False, x0=[1], x1=[2], x2=[3], x3=[4], x4=[5]),
    ):
        found = arrange(data, [wide, narrow, image]).inputs
        assert [[[1, 2]], [[3]], [[[4, 5]]]] == [found[name].tolist() for name in "abc"]


def test_what_the_order_does_not_tell() -> None:
    """Inputs of open width, and arrays of other names, need names."""
    open_width = TensorSpec(name="a", datatype=Datatype.FP32, shape=(-1, -1))
    with pytest.raises(DatasetError, match="must have 'a', 'b' by name"):
        arrange(rows(named=False, x=[[1, 2]]), [open_width, replace(open_width, name="b")])
    two = rows(p=[[1, 2]], q=[[1, 2]])
    with pytest.raises(DatasetError, match=r"must have 'a' by name.*got 'p', 'q'"):
        arrange(two, [open_width])


def test_images_of_another_layout_are_refused() -> None:
    """Channels last are as many values as channels first, and another picture."""
    spec = TensorSpec(name="image", datatype=Datatype.FP32, shape=(-1, 3, 4, 4))
    with pytest.raises(DatasetError, match=r"shape \[-1, 3, 4, 4\], got \[2, 4, 4, 3\]"):
        arrange(rows(named=False, x=np.zeros((2, 4, 4, 3)).tolist()), [spec])


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        (Datatype.INT64, [1.0, 2.0], [[1], [2]]),
        (Datatype.UINT8, [0, 255], [[0], [255]]),
        (Datatype.BOOL, [0, 1], [[False], [True]]),
        (Datatype.BYTES, [1, 2], [["1"], ["2"]]),
        (Datatype.FP64, [1, 2], [[1.0], [2.0]]),
    ],
)
def test_values_take_the_inputs_datatype(datatype: Datatype, values: list, expected: list) -> None:
    """Casts that lose nothing are made."""
    spec = TensorSpec(name="a", datatype=datatype, shape=(-1, 1), feature_names=("a",))
    assert expected == arrange(rows(a=values), [spec]).inputs["a"].tolist()


@pytest.mark.parametrize(
    ("datatype", "values", "text"),
    [
        (Datatype.INT64, [1.5, 2.0], "must hold INT64 values"),
        (Datatype.INT64, [np.nan, 2.0], "whole numbers, got a missing value"),
        (Datatype.UINT8, [0, 256], "must hold UINT8 values"),
        (Datatype.BYTES, [1.5, 2.0], "must be text, got float64"),
    ],
)
def test_casts_that_lose_something_are_refused(datatype: Datatype, values: list, text: str) -> None:
    """Nothing is rounded or wrapped in silence."""
    spec = TensorSpec(name="a", datatype=datatype, shape=(-1, 1), feature_names=("a",))
    with pytest.raises(DatasetError, match=text):
        arrange(rows(a=values), [spec])


def test_an_unreadable_column_hurts_only_who_needs_it(tmp_path: Path) -> None:
    """A column of a strange type is an error when the model takes it, else a word."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from edgepack.runtime.dataset import read_dataset

    path = tmp_path / "rows.parquet"
    stamps = pyarrow.array([0, 1], pyarrow.timestamp("s"))
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [3, 4], "when": stamps}), path)
    found = arrange(read_dataset(path), [MATRIX])
    assert "'when'" in found.messages[0]
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), feature_names=("a", "when"))
    with pytest.raises(DatasetError, match="column 'when': a column of type timestamp"):
        arrange(read_dataset(path), [spec])
