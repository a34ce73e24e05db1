"""Hostile model files: what they try does not happen. Each attack is shown to be a real one."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from converter_models import Table, run

from edgepack.converter import ModelFileError, UnsafeModelError
from edgepack.converter.sources.unpickle import load_pickle

PRECIOUS = b"precious bytes"


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def in_an_object_array(payload: Any) -> dict[str, Any]:
    array = np.empty(1, dtype=object)
    array[0] = payload
    return {"coef": array}


def as_pickle(payload: Any, path: Path) -> Path:
    path.write_bytes(pickle.dumps(payload))
    return path


def as_joblib(payload: Any, path: Path) -> Path:
    joblib.dump(payload, path)
    return path


def as_zlib_joblib(payload: Any, path: Path) -> Path:
    joblib.dump(payload, path, compress=3)
    return path


def as_xz_joblib(payload: Any, path: Path) -> Path:
    joblib.dump(payload, path, compress=("xz", 3))
    return path


def hidden_in_joblib(payload: Any, path: Path) -> Path:
    return as_joblib(in_an_object_array(payload), path)


def hidden_in_zlib_joblib(payload: Any, path: Path) -> Path:
    return as_zlib_joblib(in_an_object_array(payload), path)


def hidden_twice(payload: Any, path: Path) -> Path:
    return as_joblib(in_an_object_array(in_an_object_array(payload)), path)


WRITERS = [
    as_pickle,
    as_joblib,
    as_zlib_joblib,
    as_xz_joblib,
    hidden_in_joblib,
    hidden_in_zlib_joblib,
    hidden_twice,
]


@pytest.mark.parametrize("write", WRITERS)
def test_os_system_does_not_run(write: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    """A command in a model file, also one hidden in an array of objects, is not run."""
    mark = tmp_path / "pwned"
    model = write(Calls(os.system, f"touch {mark}"), tmp_path / "model.joblib")
    with pytest.raises(UnsafeModelError, match=r"asks for (posix|nt)\.system"):
        load_pickle(model, trust_pickle=False)
    assert not mark.exists()


@pytest.mark.parametrize("write", [as_pickle, hidden_in_zlib_joblib])
def test_os_system_is_refused_by_the_whole_conversion(
    write: Callable[[Any, Path], Path], tmp_path: Path, digits_table: Table
) -> None:
    """The same through `convert`: nothing runs, nothing is written."""
    mark = tmp_path / "pwned"
    model = write(Calls(os.system, f"touch {mark}"), tmp_path / "model.joblib")
    with pytest.raises(UnsafeModelError, match=r"asks for (posix|nt)\.system"):
        run(model, digits_table, tmp_path)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("write", WRITERS)
def test_numpy_memmap_overwrites_no_file(
    write: Callable[[Any, Path], Path], tmp_path: Path
) -> None:
    """numpy.memmap, which a rule "anything of numpy" would let through, cannot empty a file."""
    victim = tmp_path / "victim"
    victim.write_bytes(PRECIOUS)
    model = write(Calls(np.memmap, str(victim), "uint8", "w+", 0, (4,)), tmp_path / "model.joblib")
    with pytest.raises(UnsafeModelError, match=r"asks for numpy\.memmap"):
        load_pickle(model, trust_pickle=False)
    assert victim.read_bytes() == PRECIOUS


def test_numpy_memmap_is_refused_by_the_whole_conversion(
    tmp_path: Path, digits_table: Table
) -> None:
    """The file that numpy.memmap would overwrite is as it was after `convert`."""
    victim = tmp_path / "victim"
    victim.write_bytes(PRECIOUS)
    attack = Calls(np.memmap, str(victim), "uint8", "w+", 0, (4,))
    model = as_joblib(in_an_object_array(attack), tmp_path / "model.joblib")
    with pytest.raises(UnsafeModelError, match=r"numpy\.memmap"):
        run(model, digits_table, tmp_path)
    assert victim.read_bytes() == PRECIOUS


@pytest.mark.parametrize("write", WRITERS)
def test_the_attacks_are_real(write: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    """The same files do their harm when the user trusts them: the tests above can fail."""
    mark, victim = tmp_path / "pwned", tmp_path / "victim"
    victim.write_bytes(PRECIOUS)
    attacks = [
        Calls(os.system, f"touch {mark}"),
        Calls(np.memmap, str(victim), "uint8", "w+", 0, (4,)),
    ]
    for attack in attacks:
        load_pickle(write(attack, tmp_path / "model.joblib"), trust_pickle=True)
    assert mark.exists()
    assert victim.read_bytes() == b"\0\0\0\0"


NAMES = [
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"cbuiltins\ngetattr\n(S'a'\nS'upper'\ntR.",
    b"c__builtin__\nopen\n(S'x'\ntR.",
    b"cnumpy\nload\n(S'x'\ntR.",
    b"cnumpy.core\n_ufunc_reconstruct\n(S'os'\nS'system'\ntR.",
    b"cjoblib.numpy_pickle\nNDArrayWrapper\n.",
    b"cjoblib.numpy_pickle_compat\nNDArrayWrapper\n.",
    b"csklearn.datasets\nfetch_openml\n(tR.",
    b"c__main__\nmine\n.",
    b"cnumpy\nndarray.tofile\n.",
    b"\x80\x04\x8c\x0bnumpy.array\x8c\x08__name__\x93.",
    b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
]


@pytest.mark.parametrize("data", NAMES)
def test_names_off_the_list_are_refused(data: bytes, tmp_path: Path) -> None:
    """A name that is not on the list is refused, also one of a module that is."""
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    with pytest.raises(UnsafeModelError, match="not on the list"):
        load_pickle(path, trust_pickle=False)


def test_codecs_other_than_latin1_are_refused(tmp_path: Path) -> None:
    """`_codecs.encode` stays what old pickles need it for."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"c_codecs\nencode\n(S'a'\nS'idna'\ntR.")
    with pytest.raises(UnsafeModelError, match="another codec"):
        load_pickle(path, trust_pickle=False)


def test_a_class_cannot_be_changed(tmp_path: Path) -> None:
    """A pickle cannot give scikit-learn's own class another method."""
    from sklearn.linear_model import Ridge

    before = Ridge.predict
    path = tmp_path / "model.pkl"
    # BUILD with slot state on the class itself: setattr(Ridge, "predict", numpy.exp)
    path.write_bytes(b"csklearn.linear_model._ridge\nRidge\n(N(dS'predict'\ncnumpy\nexp\nstb.")
    with pytest.raises(UnsafeModelError, match="change Ridge itself"):
        load_pickle(path, trust_pickle=False)
    assert Ridge.predict is before


def test_a_dtype_cannot_hide_its_objects(tmp_path: Path) -> None:
    """A dtype that denies holding objects, so that raw bytes become pointers, is refused."""
    honest = np.dtype([("a", object)])
    _, arguments, state = honest.__reduce__()
    lying = (*state[:-1], 0)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_Built(np.dtype, arguments, lying)))
    with pytest.raises(UnsafeModelError, match="denies its objects"):
        load_pickle(path, trust_pickle=False)


class _Built:
    def __init__(self, function: Any, arguments: Any, state: Any) -> None:
        self.parts = function, arguments, state

    def __reduce__(self) -> Any:
        return self.parts


def test_an_array_description_cannot_carry_a_method(tmp_path: Path) -> None:
    """Joblib's placeholder of an array takes nothing but an array's description."""
    from joblib.numpy_pickle import NumpyArrayWrapper

    wrapper = NumpyArrayWrapper(np.ndarray, (1,), "C", np.dtype("f8"))
    wrapper.read = np.mean
    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps(wrapper))
    with pytest.raises(UnsafeModelError, match="strange description"):
        load_pickle(path, trust_pickle=False)


def test_a_skops_file_with_a_strange_type_is_refused(tmp_path: Path, digits_table: Table) -> None:
    """skops: a type that is not on the list is refused by its name."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    path = tmp_path / "model.skops"
    model = FunctionTransformer(os.getcwd).fit(digits_table.train)
    skops.io.dump(model, path)
    with pytest.raises(UnsafeModelError, match=r"(posix|nt)\.getcwd"):
        run(path, digits_table, tmp_path)


def test_a_damaged_instruction_is_named(tmp_path: Path) -> None:
    """A byte that is no instruction is said to be one, not told as a bare number."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04\x12.")
    with pytest.raises(ModelFileError, match="byte 18 stands where a pickle instruction must"):
        load_pickle(path, trust_pickle=False)


def test_calls_deep_inside_arrays_are_refused(tmp_path: Path) -> None:
    """An array of objects within an array of objects hides no call, compressed or not."""
    inner = np.empty(1, dtype=object)
    inner[0] = np.array([Calls(os.system, f"touch {tmp_path / 'pwned'}")], dtype=object)
    for compress in (0, ("zlib", 3), ("xz", 3)):
        path = tmp_path / "model.joblib"
        joblib.dump({"model": inner}, path, compress=compress)
        with pytest.raises(UnsafeModelError, match="system, which is not on the list"):
            load_pickle(path, trust_pickle=False)
    assert not (tmp_path / "pwned").exists()
