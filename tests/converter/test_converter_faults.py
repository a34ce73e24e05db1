"""What goes wrong: one line, the right exit code, no bundle, nothing temporary left."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from converter_models import Table, fit_and_save, save
from sklearn.linear_model import LogisticRegression

from edgepack.converter import ConvertError, ConvertRequest, convert
from edgepack.converter.output import check_output
from edgepack.trust.errors import EdgepackError

MODEL_OR_DATA, USAGE, TOLERANCE, DISK = 3, 2, 6, 9


@pytest.fixture(autouse=True)
def _nothing_temporary_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every test has a temporary folder of its own; it ends empty, and so do the processes."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert [] == list(scratch.iterdir())
    assert set() == set(psutil.Process().children(recursive=True)) - before
    output = tmp_path / "out"
    assert not output.exists() or [] == [item for item in output.iterdir() if item.name[0] == "."]


def refused(request: ConvertRequest) -> EdgepackError:
    """The error of a conversion that must fail; it is one line and leaves no output."""
    with pytest.raises(EdgepackError) as caught:
        convert(request)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    assert not request.output.exists()
    return caught.value


MODELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "model.pkl is empty"),
    "text": (b"hello\n" * 10, "is a text file; edgepack converts"),
    "noise": (bytes(range(256)) * 4, "is not a model that edgepack knows"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "the TFLite file is damaged"),
    "encrypted": (b"Salted__" + bytes(64), "an encrypted file"),
    "truncated pickle": (pickle.dumps([1.5] * 99)[:50], "is damaged"),
    "a dict": (pickle.dumps({"a": 1}), "holds a dict, expected a fitted scikit-learn estimator"),
    "a class": (b"csklearn.linear_model._ridge\nRidge\n.", "holds a "),
    "a name that is gone": (
        b"csklearn.linear_model._base\nLinearRegressionX\n.",
        "not on the list",
    ),
    "zlib cut off": (b"\x78\x9c" + bytes(8), "is damaged"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(64), "compressed with lz4"),
    "zip": (b"PK\x03\x04" + bytes(64), "is a damaged zip file: its end is missing"),
}


@pytest.mark.parametrize(("data", "text"), MODELS.values(), ids=MODELS.keys())
def test_bad_model_files(data: bytes, text: str, digits_table: Table, tmp_path: Path) -> None:
    """A file that is no model is refused by what it is."""
    model = tmp_path / "model.pkl"
    model.write_bytes(data)
    error = refused(ConvertRequest(model=model, data=digits_table.path, output=tmp_path / "out"))
    assert MODEL_OR_DATA == error.exit_code
    assert text in str(error)


def test_a_missing_model(digits_table: Table, tmp_path: Path) -> None:
    """A model that is not there is told by its name."""
    error = refused(
        ConvertRequest(model=tmp_path / "no.pkl", data=digits_table.path, output=tmp_path / "out")
    )
    assert MODEL_OR_DATA == error.exit_code
    assert "no.pkl cannot be read: No such file" in str(error)


def test_a_folder_is_no_model(digits_table: Table, tmp_path: Path) -> None:
    """A folder is told as such."""
    error = refused(ConvertRequest(model=tmp_path, data=digits_table.path, output=tmp_path / "out"))
    assert "is a folder" in str(error)


@pytest.mark.parametrize("kept", [10, 200, 2000, -1])
def test_a_truncated_model(
    kept: int, digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """However a joblib file is cut, it is one line."""
    model = tmp_path / "cut.joblib"
    model.write_bytes(digits_model.read_bytes()[:kept])
    error = refused(ConvertRequest(model=model, data=digits_table.path, output=tmp_path / "out"))
    assert MODEL_OR_DATA == error.exit_code


def test_flipped_bytes_never_escape(digits_model: Path, tmp_path: Path) -> None:
    """A joblib file with any byte changed loads or is refused with the documented errors."""
    from edgepack.converter.sources.unpickle import load_pickle

    good = digits_model.read_bytes()
    model = tmp_path / "flipped.joblib"
    for position in range(0, len(good), max(1, len(good) // 300)):
        data = bytearray(good)
        data[position] ^= 0x5A
        model.write_bytes(data)
        with contextlib.suppress(ConvertError, MemoryError):
            load_pickle(model, trust_pickle=False)


def test_without_data(digits_model: Path, tmp_path: Path) -> None:
    """Data is required, and the message says why and how."""
    error = refused(ConvertRequest(model=digits_model, data=None, output=tmp_path / "out"))
    assert USAGE == error.exit_code
    assert "--data FILE" in str(error)


def frame_case(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path, Path], Path]:
    """Data made from the irises by changing the table."""

    def make(source: Path, folder: Path) -> Path:
        path = folder / "data.csv"
        change(pd.read_csv(source)).to_csv(path, index=False)
        return path

    return make


DATA = {
    "column missing": (
        frame_case(lambda f: f.drop(columns="petal width")),
        "misses 1 of the model's columns: 'petal width'",
    ),
    "text for a number": (
        frame_case(lambda f: f.assign(**{"petal width": "wide"})),
        "could not convert string to float",
    ),
    "text in one cell": (
        frame_case(lambda f: f.assign(**{"petal width": ["1.0"] * 8 + ["wide"] + ["2"] * 141})),
        "could not convert string to float: 'wide' (text in 'petal width', first in row 9)",
    ),
    "too few rows": (
        frame_case(lambda f: f[:63]),
        "at least 64 rows for the golden samples, got 63",
    ),
    "one class": (
        frame_case(lambda f: f.assign(target=1)),
        "the label must have at least 2 classes, got only '1'",
    ),
    "no class of the model": (
        frame_case(lambda f: f.assign(target=[7, 8, 9] * 50)),
        "the label has none of the model's classes",
    ),
    "label not there": (frame_case(lambda f: f.drop(columns="target")), "label 'target' is not in"),
    "label with gaps": (
        frame_case(lambda f: f.assign(target=[1, None] * 75)),
        "must have a value in every row, got 75 without",
    ),
    "fractions as label": (
        frame_case(lambda f: f.assign(target=[0.5, 1.5, 2.0] * 50)),
        "the label must be classes",
    ),
    "NaN": (
        frame_case(lambda f: f.assign(**{"petal width": [None, 1.0] * 75})),
        "takes no NaN, and the data has it in 'petal width' (75 rows, the first is row 1)",
    ),
    "infinity": (
        frame_case(lambda f: f.assign(**{"petal width": [1.0, np.inf] * 75})),
        "column 'petal width' must be finite, got infinity in row 2",
    ),
    "no rows": (frame_case(lambda f: f[:0]), "has a header and no rows"),
}


@pytest.mark.parametrize(("make", "text"), DATA.values(), ids=DATA.keys())
def test_bad_data(
    make: Callable[[Path, Path], Path],
    text: str,
    iris_model: Path,
    iris_table: Table,
    tmp_path: Path,
) -> None:
    """Data that does not do is one line that says what, got and expected."""
    data = make(iris_table.path, tmp_path)
    error = refused(
        ConvertRequest(model=iris_model, data=data, label="target", output=tmp_path / "out")
    )
    assert MODEL_OR_DATA == error.exit_code
    assert text in str(error)


def test_the_label_taken_for_a_feature_is_guessed(tmp_path: Path, iris_table: Table) -> None:
    """One column too many: the message asks whether it is the label."""
    model = LogisticRegression(max_iter=300).fit(
        iris_table.train.to_numpy(), iris_table.train_labels
    )
    path = save(model, tmp_path / "iris.pkl")
    error = refused(ConvertRequest(model=path, data=iris_table.path, output=tmp_path / "out"))
    assert "is one of them the label?" in str(error)


def test_no_variant_within_the_tolerance(
    iris_model: Path, iris_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no variant is good enough there is no bundle, and the exit code is 6."""
    from edgepack.bundle.contract import Tolerances

    error = refused(
        ConvertRequest(
            model=iris_model,
            data=iris_table.path,
            output=tmp_path / "out",
            tolerances=Tolerances(rtol=0.0, atol=0.0),
        )
    )
    assert TOLERANCE == error.exit_code
    assert "no variant met its tolerance: onnx-fp32:" in str(error)


class Trusted:
    """Runs a function when a trusted file is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


WORKERS = {
    "exits": (Trusted(os._exit, 7), {}, "ended with code 7"),
    "crashes": (Trusted(os.abort), {}, "was ended by SIGABRT"),
    "hangs": (Trusted(time.sleep, 600), {"timeout_s": 3.0}, "no answer within 3 s"),
    "eats memory": (Trusted(bytearray, 1 << 40), {}, "more memory than the limit"),
    "writes": (Trusted(exec, "import os,sys; os.write(1, b'x' * 99)"), {}, "holds a NoneType"),
}


@pytest.mark.parametrize(("payload", "options", "text"), WORKERS.values(), ids=WORKERS.keys())
def test_the_child_process_is_contained(
    payload: Trusted, options: dict[str, Any], text: str, digits_table: Table, tmp_path: Path
) -> None:
    """Whatever the model's process does, this one answers with one line, and in time."""
    model = tmp_path / "model.pkl"
    model.write_bytes(pickle.dumps(payload))
    started = time.monotonic()
    error = refused(
        ConvertRequest(
            model=model,
            data=digits_table.path,
            output=tmp_path / "out",
            trust_pickle=True,
            **options,
        )
    )
    assert text in str(error)
    assert time.monotonic() - started < 30


SCRIPT = """
import resource, sys
from pathlib import Path
from edgepack.converter import ConvertRequest, convert
from edgepack.trust.errors import EdgepackError
model, data, output, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    convert(ConvertRequest(model=Path(model), data=Path(data), output=Path(output)),
            lambda step: print(step.stage, flush=True))
except EdgepackError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(model: Path, data: Path, output: Path, limit: int = 0) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", SCRIPT, str(model), str(data), str(output), str(limit)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk(digits_model: Path, digits_table: Table, tmp_path: Path) -> None:
    """A disk that takes no more ends with exit code 9 and without half a bundle."""
    process = start(digits_model, digits_table.path, tmp_path / "out", limit=20_000)
    _, errors = process.communicate(timeout=60)
    assert DISK == process.returncode, errors
    assert 1 == len(errors.strip().splitlines())
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """A folder that cannot be made ends with exit code 9."""
    request = ConvertRequest(
        model=digits_model, data=digits_table.path, output=Path("/proc/edgepack-no-such-folder")
    )
    with pytest.raises(EdgepackError, match="cannot be written") as caught:
        convert(request)
    assert DISK == caught.value.exit_code


def test_an_output_that_is_a_file(digits_model: Path, digits_table: Table, tmp_path: Path) -> None:
    """A file in the place of the output folder is told before any work."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    request = ConvertRequest(model=digits_model, data=digits_table.path, output=taken)
    with pytest.raises(EdgepackError, match="output must be a folder") as caught:
        convert(request)
    assert USAGE == caught.value.exit_code
    assert "mine" == taken.read_text()


def test_an_output_that_is_named_as_a_bundle(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Who takes the output for a file is told that it is a folder; a folder of that name does."""
    output = tmp_path / "digits.edgepack"
    request = ConvertRequest(model=digits_model, data=digits_table.path, output=output)
    with pytest.raises(EdgepackError, match=r"must be a folder .*NAME-VERSION\.edgepack") as caught:
        convert(request)
    assert USAGE == caught.value.exit_code
    assert not output.exists()
    output.mkdir()
    check_output(output)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_command_leaves_nothing(
    signal_number: signal.Signals, digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Ctrl-C or a kill while the scratch folder is in use: no output, nothing temporary."""
    scratch = tmp_path / "temporary"
    scratch.mkdir()
    options = ["--data", str(digits_table.path), "-o", str(tmp_path / "out"), "--no-cache"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepack.cli.main", "convert", str(digits_mlp), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(scratch)},
        text=True,
    )
    while not list(scratch.glob("edgepack-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    # Interrupted while it makes a dataclass, Python ends itself by the signal after all was done.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "edgepack: interrupted" == errors.strip()
    assert [] == list(scratch.iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wanted", ["source", "export", "quantize", "pack"])
def test_ctrl_c(wanted: str, digits_mlp: Path, digits_table: Table, tmp_path: Path) -> None:
    """Interrupted at any stage: exit code 130, no output, no child, nothing temporary."""
    process = start(digits_mlp, digits_table.path, tmp_path / "out")
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == wanted:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    # At "pack" the work may be done before the signal is seen; then the bundle is whole.
    if process.returncode == 0:
        assert "pack" == wanted
        assert 1 == len(list((tmp_path / "out").iterdir()))
    else:
        assert 130 == process.returncode
        assert not (tmp_path / "out").exists()


def test_a_pipe_is_no_model(digits_table: Table, tmp_path: Path) -> None:
    """A named pipe, which would block, is refused."""
    pipe = tmp_path / "model.pkl"
    os.mkfifo(pipe)
    error = refused(ConvertRequest(model=pipe, data=digits_table.path, output=tmp_path / "out"))
    assert "is not a regular file" in str(error)


@pytest.mark.parametrize("package", ["skl2onnx", "sklearn"])
def test_a_missing_package_names_what_to_install(
    package: str,
    digits_model: Path,
    digits_table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without scikit-learn's packages the message is the line to run."""
    folder = tmp_path / "path" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    error = refused(
        ConvertRequest(model=digits_model, data=digits_table.path, output=tmp_path / "out")
    )
    assert USAGE == error.exit_code
    assert f"need {package}: pip install 'edgepack[sklearn]'" in str(error)


def test_a_broken_package_is_one_line(
    digits_model: Path, digits_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that fails in its own way is one line too."""
    folder = tmp_path / "path" / "skl2onnx"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    error = refused(
        ConvertRequest(model=digits_model, data=digits_table.path, output=tmp_path / "out")
    )
    assert "scikit-learn cannot be imported: division by zero" in str(error)


def test_an_estimator_without_a_converter(iris_table: Table, tmp_path: Path) -> None:
    """An estimator that cannot be converted is one line that says why."""
    from sklearn.decomposition import NMF

    path = fit_and_save(NMF(2), iris_table, tmp_path / "nmf.pkl")
    error = refused(
        ConvertRequest(model=path, data=iris_table.path, label="target", output=tmp_path / "out")
    )
    assert MODEL_OR_DATA == error.exit_code
    assert "NMF.transform iterates until the factors of all rows together settle" in str(error)
