"""Reading rows from every format, and refusing what is no such file."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.runtime.dataset import Dataset, read_dataset, take_rows
from edgepack.runtime.errors import DatasetError

CSV = "a,b,kind\n1,0.5,M\n2,1.5,L\n3,,\n"


def csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv(tmp_path: Path) -> None:
    """Whole numbers, fractions with a gap, and text with a gap."""
    found = read_dataset(csv(tmp_path, CSV))
    assert ("CSV", 3, True, True) == (found.format, found.rows, found.named, found.is_table)
    assert np.int64 == found.arrays["a"].dtype
    assert [1, 2, 3] == found.arrays["a"].tolist()
    np.testing.assert_array_equal([0.5, 1.5, np.nan], found.arrays["b"])
    assert ["M", "L", ""] == found.arrays["kind"].tolist()
    assert found.truth is None


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + CSV.encode(),
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace("\n", "\r\n"),
        CSV + "\n\n",
        '"a","b","kind"\n' + CSV.split("\n", 1)[1],
    ],
    ids=["byte-order mark", "semicolons", "tabs", "windows lines", "blank lines", "quoted"],
)
def test_csv_dialects(text: str | bytes, tmp_path: Path) -> None:
    """A byte-order mark, other separators, line ends and quotes change nothing."""
    expected = read_dataset(csv(tmp_path, CSV))
    found = read_dataset(csv(tmp_path, text))
    assert list(expected.arrays) == list(found.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(array, found.arrays[name])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3"], np.array([1, -2, 3])),
        (["1", "2.0"], np.array([1.0, 2.0])),
        (["1e3", ".5", "5."], np.array([1000.0, 0.5, 5.0])),
        ([" 1 ", "2 "], np.array([1, 2])),
        (["1", "NA", "null"], np.array([1.0, np.nan, np.nan])),
        (["nan", "1"], np.array([np.nan, 1.0])),
        (["inf", "1"], np.array([np.inf, 1.0])),
        (["", ""], np.array([np.nan, np.nan])),
        (["True", "false"], np.array([True, False])),
        (["True", ""], np.array(["True", ""], dtype=object)),
        (["1_000", "2"], np.array(["1_000", "2"], dtype=object)),
        (["0x10", "2"], np.array(["0x10", "2"], dtype=object)),
        (["9" * 25, "2"], np.array([float("9" * 25), 2.0])),
        (["2024-01-01", "2"], np.array(["2024-01-01", "2"], dtype=object)),
    ],
)
def test_what_a_column_is(cells: list[str], expected: np.ndarray, tmp_path: Path) -> None:
    """The documented inference, and nothing else."""
    text = "a,other\n" + "".join(f"{cell},x\n" for cell in cells)
    found = read_dataset(csv(tmp_path, text)).arrays["a"]
    assert expected.dtype == found.dtype
    np.testing.assert_array_equal(expected, found)


def test_csv_without_a_header(tmp_path: Path) -> None:
    """A first line of numbers is a row."""
    found = read_dataset(csv(tmp_path, "1,2\n3,4\n"))
    assert not found.named
    assert {"x0": [1, 3], "x1": [2, 4]} == {k: v.tolist() for k, v in found.arrays.items()}


def test_a_column_without_a_name(tmp_path: Path) -> None:
    """The index that pandas writes is a column called as pandas calls it."""
    found = read_dataset(csv(tmp_path, ",a\n0,5\n1,6\n"))
    assert ["Unnamed: 0", "a"] == list(found.arrays)
    assert [5, 6] == found.arrays["a"].tolist()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["007", "10"], ["007", "10"]),
        (["+1", " 2"], ["+1", "2"]),
        (["true", "FALSE"], ["true", "FALSE"]),
        (["7", "NA"], ["7", ""]),
        (["7", "10"], None),
        (["True", "False"], None),
        (["1.50", "2"], ["1.50", "2"]),
        (["1.50", ""], ["1.50", ""]),
        ([f"{number}.5" for number in range(300)], None),
        (["a", "01"], None),
    ],
)
def test_text_of_numbers(cells: list[str], expected: list[str] | None, tmp_path: Path) -> None:
    """What the file writes is kept where whole numbers or truth values would not tell it."""
    text = "a,b,other\n" + "".join(f"{cell},{cell},x\n" for cell in cells)
    found = read_dataset(csv(tmp_path, text), label="b")
    kept = found.texts.get("a")
    assert expected == (None if kept is None else kept.tolist())
    labels = np.array(["any"], dtype=object)
    truth = found.truth_like(labels)
    assert truth is not None
    assert (found.truth is truth) == (expected is None)
    last = take_rows(found, np.array([1]))
    assert (expected or [None, None])[1] == (last.texts["a"][0] if expected else None)


def test_the_label_is_taken_out(tmp_path: Path) -> None:
    """The label column becomes the truth."""
    found = read_dataset(csv(tmp_path, CSV), label="a")
    assert found.truth is not None
    assert [1, 2, 3] == found.truth.tolist()
    assert ["b", "kind"] == list(found.arrays)


def test_several_labels_are_taken_out(tmp_path: Path) -> None:
    """Columns that are joined by a comma are one truth of two columns; text keeps its zeros."""
    path = csv(tmp_path, "x,pump,valve\n1,007,ok\n2,7,shut\n")
    found = read_dataset(path, label="pump,valve")
    assert found.truth is not None
    assert [["007", "ok"], ["7", "shut"]] == found.truth.tolist()
    assert ("pump", "valve") == found.truth_columns
    assert ["x"] == list(found.arrays)
    with pytest.raises(DatasetError, match="label 'gone' is not in"):
        read_dataset(path, label="pump,gone")


BAD_CSV = {
    "empty": (b"", "is empty"),
    "header only": (b"a,b\n", "has a header and no rows"),
    "ragged": (b"a,b\n1,2\n3\n", "line 3 must have 2 cells, got 1"),
    "twice": (b"a,a\n1,2\n", "column 'a' stands twice"),
    "unnamed twice": (b"Unnamed: 1,\n1,2\n", "column 'Unnamed: 1' stands twice"),
    "latin-1": ("a,b\nä,1\n".encode("latin-1"), "is not CSV, Parquet, npz, npy or safetensors"),
    "binary": (b"a\0b,c\n1,2\n", "is not CSV"),
    "label missing": (b"b,c\n1,2\n", "label 'a' is not in rows.csv"),
    "label without names": (b"1,2\n3,4\n", "label 'a' is not in rows.csv, which has no names"),
    "only the label": (b"a\n1\n", "at least one column besides the label"),
}


@pytest.mark.parametrize(("data", "text"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_bad_csv(data: bytes, text: str, tmp_path: Path) -> None:
    """One line that says what is wrong and where."""
    with pytest.raises(DatasetError, match=text) as caught:
        read_dataset(
            csv(tmp_path, data), label="a" if "label" in text or b"a," not in data else None
        )
    assert 3 == caught.value.exit_code


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is told by its name."""
    with pytest.raises(DatasetError, match=r"data no\.csv cannot be read: No such file"):
        read_dataset(tmp_path / "no.csv")


def test_parquet(tmp_path: Path) -> None:
    """Numbers, nulls, text, categories and booleans; other types only hurt who needs them."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "a": [1, 2, 3],
            "b": [0.5, None, 1.5],
            "n": pyarrow.array([1, None, 3], pyarrow.int32()),
            "kind": ["M", None, "L"],
            "cat": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
            "flag": [True, False, True],
            "when": pyarrow.array([0, 1, 2], pyarrow.timestamp("s")),
        }
    )
    path = tmp_path / "rows.parquet"
    parquet.write_table(table, path)
    found = read_dataset(path, label="a")
    assert "Parquet" == found.format
    np.testing.assert_array_equal([0.5, np.nan, 1.5], found.arrays["b"])
    np.testing.assert_array_equal([1.0, np.nan, 3.0], found.arrays["n"])
    assert ["M", "", "L"] == found.arrays["kind"].tolist()
    assert ["x", "y", "x"] == found.arrays["cat"].tolist()
    assert [True, False, True] == found.arrays["flag"].tolist()
    assert ["when"] == list(found.unreadable)
    with pytest.raises(DatasetError, match="type timestamp"):
        read_dataset(path, label="when")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match="damaged Parquet"):
        read_dataset(path)


def test_npz_with_a_y_array(tmp_path: Path) -> None:
    """X and y are the matrix and the truth, without being named."""
    path = tmp_path / "rows.npz"
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez_compressed(path, X=rows, y=np.array([[0], [1], [0]]), scale=np.float32(2))
    found = read_dataset(path)
    np.testing.assert_array_equal(rows, found.arrays["x"])
    assert found.truth is not None
    assert [0, 1, 0] == found.truth.tolist()


def test_npz_of_columns(tmp_path: Path) -> None:
    """Arrays of one dimension are columns; text is text."""
    path = tmp_path / "rows.npz"
    np.savez(path, a=np.arange(3), kind=np.array(["M", "L", "né"]), label=np.array([1, 0, 1]))
    found = read_dataset(path)
    assert found.is_table
    assert ["M", "L", "né"] == found.arrays["kind"].tolist()
    assert found.truth is not None


def test_npy(tmp_path: Path) -> None:
    """One array is the matrix, without names."""
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((4, 3, 2), np.int8))
    found = read_dataset(path)
    assert ("npy", False, (4, 3, 2)) == (found.format, found.named, found.arrays["x"].shape)


def test_safetensors(tmp_path: Path) -> None:
    """Safetensors files are read like npz."""
    from safetensors.numpy import save_file

    path = tmp_path / "rows.safetensors"
    save_file({"X": np.zeros((4, 3), np.float32), "y": np.arange(4)}, path)
    found = read_dataset(path)
    assert ("safetensors", ["x"]) == (found.format, list(found.arrays))
    assert found.truth is not None
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DatasetError, match=r"rows\.safetensors"):
        read_dataset(path)


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


class Marks:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_objects_are_never_unpickled(suffix: str, tmp_path: Path) -> None:
    """An array of objects is refused without looking into it."""
    mark = tmp_path / "pwned"
    array = np.empty(1, dtype=object)
    array[0] = Marks(mark)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, X=array)
    np.load(path, allow_pickle=True)["X" if suffix == "npz" else 0]
    assert mark.exists()
    mark.unlink()
    with pytest.raises(DatasetError, match="must hold numbers or text"):
        read_dataset(path)
    assert not mark.exists()


def test_sizes_are_not_believed(tmp_path: Path) -> None:
    """A header that promises more than the file holds is refused before memory is asked for."""
    path = tmp_path / "rows.npy"
    data = npy(np.zeros((10, 4)))
    path.write_bytes(data.replace(b"(10, 4)", b"(9999999999, 4)".ljust(7))[: len(data)])
    with pytest.raises(DatasetError, match=r"truncated|damaged"):
        read_dataset(path)


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an npz unpacks to is bounded before it is unpacked."""
    from edgepack.runtime import dataset

    monkeypatch.setattr(dataset, "MAX_FILE_BYTES", 1_000_000)
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, X=np.zeros((1000, 1000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match="must hold at most"):
        read_dataset(path)


def test_a_zip_that_is_no_npz(tmp_path: Path) -> None:
    """A zip file of something else is told as such."""
    path = tmp_path / "rows.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DatasetError, match="zip file and not an npz"):
        read_dataset(path)


def test_arrays_of_different_lengths(tmp_path: Path) -> None:
    """All arrays have the same rows."""
    path = tmp_path / "rows.npz"
    np.savez(path, X=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(DatasetError, match="same number of rows, got x 3, label 4"):
        read_dataset(path)


def test_rows_can_be_taken(tmp_path: Path) -> None:
    """Chosen rows, in the chosen order, truth included."""
    found = take_rows(read_dataset(csv(tmp_path, CSV), label="a"), np.array([2, 0]))
    assert (2, ["", "M"]) == (found.rows, found.arrays["kind"].tolist())
    assert found.truth is not None
    assert [3, 1] == found.truth.tolist()


SEEDS = [CSV.encode(), npy(np.zeros((3, 2))), npy(np.array(["a", "b"])), b"PK\x03\x04", b"PAR1"]


@pytest.mark.parametrize(
    ("dtype", "data"),
    [("<U1", b"a\0\0\0\xff\xff\xff\x7f"), ("<U1", b"a\0\0\0\0\xd8\0\0"), ("S1", b"a\xff")],
    ids=["beyond Unicode", "lone surrogate", "not UTF-8"],
)
def test_an_npy_of_text_that_is_none_is_told(dtype: str, data: bytes, tmp_path: Path) -> None:
    """Where numpy itself gives a SystemError."""
    file = io.BytesIO()
    np.save(file, np.array(["a", "b"], dtype))
    path = tmp_path / "x.npy"
    path.write_bytes(file.getvalue()[: -len(data)] + data)
    with pytest.raises(DatasetError, match=r"x.npy must hold UTF-8 text, got other bytes"):
        read_dataset(path)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.binary(max_size=60), st.integers(0, 120))
def test_any_bytes_are_rows_or_the_error(seed: bytes, noise: bytes, position: int) -> None:
    """Whatever is in the file, what comes back is a dataset or the documented error."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        path.write_bytes(seed[:position] + noise + seed[position:])
        try:
            found = read_dataset(path)
        except DatasetError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(found, Dataset)
            assert {found.rows} == {len(array) for array in found.arrays.values()}
