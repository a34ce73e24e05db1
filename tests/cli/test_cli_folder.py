"""predict and bench on a folder of images, with a bundle that takes raw ones."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_bundle import COLOURS, colour_images, write_image_bundle

from edgepack.bundle import open_bundle
from edgepack.runtime.dataset_inputs import read_for_model


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose contract has steps."""
    return write_image_bundle(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of another size than the golden samples, one subfolder a class."""
    images, labels = colour_images(30, side=24, seed=5)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "photos" / label / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_each_file_is_answered_by_its_name(edgepack, bundle, folder):
    """The first column is the file; the answers are right."""
    ended = edgepack("predict", bundle, folder, "--batch", 7)
    rows = list(csv.DictReader(io.StringIO(ended.out)))

    assert ["file", "label", *(f"p_{name}" for name in COLOURS)] == list(rows[0])
    assert 30 == len(rows)
    assert [row["file"].split("/")[0] for row in rows] == [row["label"] for row in rows]
    assert sorted(row["file"] for row in rows) == [row["file"] for row in rows]


def test_images_of_several_sizes_are_read_as_the_steps_would_resize_them(edgepack, bundle, folder):
    """A contract that takes any size takes them all."""
    Image.fromarray(np.full((50, 40, 3), (9, 9, 200), np.uint8)).save(folder / "blue" / "zz.png")

    ended = edgepack("predict", bundle, folder)

    assert (0, 32) == (ended.code, len(ended.out.splitlines()))
    found = read_for_model(folder, open_bundle(bundle).contract)
    assert (31, 8, 8, 3) == found.arrays["image"].shape


def test_a_folder_is_scored_by_its_classes(edgepack, bundle, folder):
    """Bench compares the answers with the names of the subfolders, and the golden samples."""
    ended = edgepack(
        "bench", "run", bundle, "--data", folder, "--calls", "60", "--seconds", "0.5", "--json"
    )
    (variant,) = ended.document["variants"]
    assert (0, True) == (ended.code, variant["passed"])
    assert (30, 1.0) == (variant["data_rows"], variant["accuracy"])


def test_a_folder_of_something_else_is_one_line(edgepack, bundle, tmp_path):
    """With the code of data that does not do."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    ended = edgepack("predict", bundle, tmp_path / "texts")
    assert 3 == ended.code
    assert "a.txt is neither an image nor a WAV file" in ended.err
    assert 1 == len(ended.err.strip().splitlines())


def test_inspect_shows_what_callers_give(edgepack, bundle):
    """The raw input, and each step from it."""
    shown = edgepack("inspect", bundle).out
    assert "UINT8" in shown
    assert "step     image: resize height 8, method area, width 8\n" in shown
