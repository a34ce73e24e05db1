"""Telling what a file is by its content, and the messages between the processes."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.converter import ModelFileError, WorkerError
from edgepack.converter.sources.compressed import compression_of, open_unpacked
from edgepack.converter.sources.find import SOURCES, recognise, source_named
from edgepack.converter.sources.protobuf import is_onnx
from edgepack.converter.worker_messages import Message, read_message, write_message

PICKLE = pickle.dumps({"a": list(range(100))})
PACKED = {
    "gzip": gzip.compress(PICKLE),
    "bz2": bz2.compress(PICKLE),
    "xz": lzma.compress(PICKLE),
    "lzma": lzma.compress(PICKLE, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress(PICKLE),
}


@pytest.mark.parametrize(("name", "data"), PACKED.items())
def test_compressed_files_are_unpacked(name: str, data: bytes, tmp_path: Path) -> None:
    """Every compression that joblib writes, but lz4, is told by content and read."""
    path = tmp_path / "model"
    path.write_bytes(data)
    assert name == compression_of(data)
    with open_unpacked(path) as file:
        assert PICKLE == file.read()
    assert f"pickle file, {name}-compressed" == recognise(path).description


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    """Protocols 2 to 5 by their mark, 0 and 1 by the names that scikit-learn's begin with."""
    from sklearn.linear_model import Ridge

    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps(Ridge(), protocol=protocol))
    assert "pickle file" == recognise(path).description


def test_a_skops_file_and_a_strange_zip(tmp_path: Path) -> None:
    """A zip file is skops if it has skops's schema, and is told otherwise."""
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "{}")
    assert "scikit-learn model, skops" == recognise(path).description
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x")
    with pytest.raises(ModelFileError, match="a zip file of another kind"):
        recognise(path)


def test_onnx_is_told_without_onnx(tmp_path: Path) -> None:
    """An ONNX file is known by its fields, whatever it is called."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    data = helper.make_model(graph).SerializeToString()
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    assert "ONNX model" == recognise(path).description
    assert onnx.load_model_from_string(data).graph.name == "g"


@given(st.binary(max_size=200))
def test_any_bytes_are_no_accident(data: bytes) -> None:
    """Whatever the bytes: an answer, or the documented error."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.write_bytes(b"\x08\x08" + data)
        try:
            assert is_onnx(path, path.read_bytes()) in (True, False)
            recognise(path)
        except ModelFileError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_meets_its_protocol(name: str, tmp_path: Path) -> None:
    """One contract suite: a name, an extra, and None for what is not its own."""
    source = source_named(name)
    assert source.name
    assert source.extra
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"hello")
    assert source.recognise(stranger, b"hello") is None


def test_recognising_imports_no_framework() -> None:
    """Importing the converter and its sources loads no framework into the user's process."""
    import subprocess
    import sys

    code = (
        "import sys, edgepack.converter; from edgepack.converter.sources.find import *;"
        "[source_named(name) for name in SOURCES];"
        "heavy = {'sklearn', 'onnx', 'skl2onnx', 'pandas', 'scipy', 'joblib', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


ARRAYS = {
    "zebra": np.arange(6, dtype=np.float32).reshape(2, 3),
    "text": np.array([["a"], ["né"]], dtype=object),
    "ant": np.array([1, 2], dtype=np.int64),
}


def test_messages_come_back_as_they_went() -> None:
    """Kind, fields and arrays survive, in their order."""
    stream = io.BytesIO()
    write_message(stream, Message(kind="run", fields={"task": "x"}, arrays=ARRAYS))
    stream.seek(0)
    found = read_message(stream)
    assert found is not None
    assert ("run", {"task": "x"}) == (found.kind, found.fields)
    assert list(ARRAYS) == list(found.arrays)
    for name, array in ARRAYS.items():
        assert array.tolist() == found.arrays[name].tolist()
    assert read_message(stream) is None


@given(st.binary(max_size=300), st.integers(0, 60))
def test_a_hostile_child_cannot_send_more_than_nonsense(noise: bytes, position: int) -> None:
    """Whatever the child sends is a message or a WorkerError."""
    stream = io.BytesIO()
    write_message(stream, Message(kind="run", arrays=ARRAYS))
    good = stream.getvalue()
    for data in (noise, good[:position] + noise + good[position + len(noise) :]):
        try:
            found = read_message(io.BytesIO(data))
        except WorkerError:
            continue
        assert found is None or isinstance(found.kind, str)
