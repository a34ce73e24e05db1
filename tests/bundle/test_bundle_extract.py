"""Extracting: ordinary files, all of them or none."""

import os
import sys

import pytest
from bundle_factory import GOLDEN, MODEL, write_small

from edgepack.bundle import extract_bundle, open_bundle, parse_contract
from edgepack.bundle.errors import BundleWriteError, DestinationError, DigestError


@pytest.fixture
def bundle(tmp_path):
    """An open bundle."""
    return open_bundle(write_small(tmp_path / "a.edgepack"))


def names(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_file_is_written(bundle, tmp_path):
    """Each variant has its folder, and the contract lies at the top."""
    out = tmp_path / "out"

    files = extract_bundle(bundle, out)

    assert [
        out / "contract.json",
        out / "README.md",
        out / "golden.safetensors",
        out / "onnx-fp32/model.onnx",
    ] == files
    assert ["README.md", "contract.json", "golden.safetensors", "onnx-fp32/model.onnx"] == names(
        out
    )
    assert MODEL == (out / "onnx-fp32/model.onnx").read_bytes()
    assert GOLDEN == (out / "golden.safetensors").read_bytes()
    assert bundle.contract == parse_contract((out / "contract.json").read_bytes())


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_files_have_the_modes_of_ordinary_files(bundle, tmp_path):
    """Others can read what was extracted, as the umask says."""
    before = os.umask(0o022)
    try:
        extract_bundle(bundle, tmp_path / "out")
    finally:
        os.umask(before)

    assert 0o644 == (tmp_path / "out/contract.json").stat().st_mode & 0o777
    assert 0o755 == (tmp_path / "out/onnx-fp32").stat().st_mode & 0o777


def test_an_empty_folder_and_missing_parents_are_fine(bundle, tmp_path, monkeypatch):
    """So is the folder that one stands in."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "here").mkdir()

    extract_bundle(bundle, tmp_path / "empty")
    extract_bundle(bundle, tmp_path / "a/b/c")
    monkeypatch.chdir(tmp_path / "here")
    extract_bundle(bundle, ".")

    for folder in ("empty", "a/b/c", "here"):
        assert 4 == len(names(tmp_path / folder))


def test_what_is_there_is_never_touched(bundle, tmp_path):
    """A folder with something in it, a file and a link are refused."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    before = names(tmp_path)

    for name in ("full", "file", "link"):
        with pytest.raises(
            DestinationError, match="must not exist or be an empty folder"
        ) as caught:
            extract_bundle(bundle, tmp_path / name)
        assert 2 == caught.value.exit_code

    assert before == names(tmp_path)


def test_a_bundle_that_changed_meanwhile_leaves_nothing(bundle, tmp_path):
    """Not even the files that were still good."""
    path = tmp_path / "a.edgepack"
    path.write_bytes(path.read_bytes().replace(MODEL, MODEL.upper()))

    with pytest.raises(DigestError):
        extract_bundle(bundle, tmp_path / "out")

    assert ["a.edgepack"] == names(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_is_told(bundle, tmp_path):
    """In one line, with the exit code of a disk."""
    (tmp_path / "file").write_text("")

    with pytest.raises((BundleWriteError, DestinationError)) as caught:
        extract_bundle(bundle, tmp_path / "file" / "out")

    assert "\n" not in str(caught.value)
