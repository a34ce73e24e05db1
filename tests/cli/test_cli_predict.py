"""Scoring a file: every format says the same, and nothing half-written is left."""

import csv
import io
import json

import numpy as np
import pytest
from support.tiny_bundle import CLASSES, FEATURES, tiny_model

ROWS = 25
COLUMNS = ["label", *(f"p_{name}" for name in CLASSES)]


@pytest.fixture
def data(tmp_path):
    """A CSV of real columns and one that the model does not take."""
    x = np.random.default_rng(5).normal(size=(ROWS, 4)).astype(np.float32)
    path = tmp_path / "data.csv"
    lines = [",".join([*FEATURES, "note"])]
    lines += [",".join([*(repr(float(v)) for v in row), "-"]) for row in x]
    path.write_text("\n".join(lines) + "\n")
    return path, tiny_model().predict(x)


@pytest.mark.parametrize("batch", [1, 7, 1024])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "npz"])
def test_every_format_holds_the_same_answers(edgepack, bundle, data, tmp_path, suffix, batch):
    """Labels and probabilities are the model's, whatever the format and the batch."""
    path, expected = data
    out = tmp_path / f"out.{suffix}"
    ended = edgepack("predict", bundle, path, "-o", out, "--batch", batch, "--json")
    facts = ended.document
    assert ("tiny", "1.0.0", ROWS) == (facts["model"], facts["version"], facts["rows"])
    assert "columns that the model does not take are ignored: 'note'" in ended.err
    columns = read(out)
    assert COLUMNS == list(columns)
    assert list(expected["label"]) == list(columns["label"])
    got = np.array([columns[name] for name in COLUMNS[1:]], dtype=float).T
    np.testing.assert_allclose(got, expected["probabilities"], rtol=1e-4, atol=1e-5)


def test_without_a_file_the_answers_go_to_standard_output(edgepack, bundle, data):
    """Standard output is a CSV with one header."""
    path, expected = data
    ended = edgepack("predict", bundle, path, "--batch", 10)
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert list(expected["label"]) == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-o", "out.txt"], 2),
        (["--batch", "0"], 2),
        (["--json"], 2),
        (["--variant", "tflite-int8"], 2),
        (["-o", "absent/out.csv"], 9),
    ],
)
def test_what_cannot_be_done_is_refused(
    edgepack, bundle, data, tmp_path, monkeypatch, arguments, code
):
    """Wrong options end with 2, and a folder that is not there with the disk's code."""
    monkeypatch.chdir(tmp_path)
    ended = edgepack("predict", bundle, data[0], *arguments)
    assert (code, 1) == (ended.code, len(ended.err.splitlines()[-1:]))
    assert "" == ended.out


def test_data_that_does_not_fit_leaves_no_file(edgepack, bundle, tmp_path):
    """A missing column ends with 3 and the output file never appears."""
    path, out = tmp_path / "data.csv", tmp_path / "out.csv"
    path.write_text("air_temp,torque\n1,2\n")
    ended = edgepack("predict", bundle, path, "-o", out)
    assert (3, False) == (ended.code, out.exists())
    assert "'speed', 'wear'" in ended.err


def test_an_interruption_leaves_the_old_file(edgepack, bundle, data, tmp_path, monkeypatch):
    """Ctrl-C in the middle leaves what was there, and nothing else."""
    from edgepack.cli import predict as module

    calls = []

    def interrupted(outputs, contract):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"label": outputs["label"]}

    monkeypatch.setattr(module, "flat_columns", interrupted)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "out.csv").write_text("old")
    ended = edgepack("predict", bundle, data[0], "-o", folder / "out.csv", "--batch", 5)
    assert 130 == ended.code
    assert ["out.csv"] == [path.name for path in folder.iterdir()]
    assert "old" == (folder / "out.csv").read_text()


def test_a_root_that_does_not_vouch_stops_it(edgepack, bundle, data, keys, tmp_path):
    """With --root the bundle is verified before its model runs."""
    edgepack("keygen", tmp_path / "others")
    others = tmp_path / "others" / "root.json"
    assert 5 == edgepack("predict", bundle, data[0], "--root", others).code
    assert 0 == edgepack("predict", bundle, data[0], "--root", keys / "root.json").code


def read(path):
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return {name: [row[name] for row in rows] for name in rows[0]}
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {name: [row[name] for row in rows] for name in rows[0]}
    if path.suffix == ".npz":
        return dict(np.load(path, allow_pickle=False))
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pydict()
