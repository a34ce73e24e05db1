"""Folders of images and WAV files as rows: sorted, bounded, refused in one line."""

import io
import os
import struct
import subprocess
import sys
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgepack.runtime import dataset_folder, dataset_images
from edgepack.runtime.dataset import read_dataset, take_rows
from edgepack.runtime.dataset_wav import parse_wav
from edgepack.runtime.errors import DatasetError


def pixels(height: int = 6, width: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return made[:, :, 0] if channels == 1 else made


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_wav(path: Path, values: np.ndarray, *, rate: int = 8000, width: int = 2) -> Path:
    """Write whole numbers (T,) or (T, channels) with the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = values.reshape(len(values), -1)
    if width == 3:
        data = b"".join(int(v).to_bytes(3, "little", signed=True) for v in array.ravel())
    else:
        data = array.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(array.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def test_a_subfolder_is_a_class(tmp_path):
    """Rows are sorted by class and file, and the truth is the folder's name."""
    for index, name in enumerate(["dogs/b.png", "dogs/a.png", "cats/2.png", "cats/10.png"]):
        save(tmp_path / name, pixels(seed=index))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cats" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cats" / "Thumbs.db").write_bytes(b"x")

    found = read_dataset(tmp_path)

    assert ("cats/10.png", "cats/2.png", "dogs/a.png", "dogs/b.png") == found.names
    assert ["cats", "cats", "dogs", "dogs"] == found.truth.tolist()
    assert (("cats", "dogs"), 4, "folder of images") == (found.classes, found.rows, found.format)
    assert ((4, 6, 8, 3), np.uint8) == (found.arrays["image"].shape, found.arrays["image"].dtype)
    np.testing.assert_array_equal(pixels(seed=1), found.arrays["image"][2])


def test_a_flat_folder_has_no_truth(tmp_path):
    """And its rows may be chosen as those of any dataset."""
    for index in range(3):
        save(tmp_path / f"{index}.png", pixels(seed=index))

    found = read_dataset(tmp_path)
    some = take_rows(found, np.array([2, 0]))

    assert (None, ()) == (found.truth, found.classes)
    assert ("2.png", "0.png") == some.names
    np.testing.assert_array_equal(pixels(seed=2), some.arrays["image"][0])


def test_the_digest_is_of_names_and_contents(tmp_path):
    """The same folder elsewhere has the same; another name or pixel another."""
    digests = set()
    for folder, name, seed in [("a", "x", 0), ("b", "x", 0), ("c", "y", 0), ("d", "x", 1)]:
        save(tmp_path / folder / f"{name}.png", pixels(seed=seed))
        digests.add(read_dataset(tmp_path / folder).digest)
    assert 3 == len(digests)
    assert all(digest.startswith("sha256:") for digest in digests)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "jpg"])
def test_formats_are_told_by_their_content(suffix, tmp_path):
    """Whatever the file is called."""
    path = save(tmp_path / "in" / f"x.{suffix}", np.full((4, 4, 3), 200, np.uint8))
    path.rename(path.with_suffix(".dat"))
    np.testing.assert_allclose(200, read_dataset(tmp_path / "in").arrays["image"], atol=2)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)],
)
def test_channels_are_one_or_three(mode, expected, tmp_path):
    """Gray stays gray, transparency is dropped, everything else becomes RGB."""
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(pixels()).convert(mode).save(tmp_path / f"x.{suffix}")
    assert (1, 6, 8, expected) == read_dataset(tmp_path).arrays["image"].shape


def test_one_image_in_colour_makes_all_rgb(tmp_path):
    """A gray one has three equal channels then."""
    gray = pixels(channels=1)
    save(tmp_path / "a.png", gray)
    save(tmp_path / "b.png", pixels())
    found = read_dataset(tmp_path).arrays["image"]
    np.testing.assert_array_equal(np.stack([gray] * 3, axis=2), found[0])


def test_sixteen_bits_are_cut_to_the_upper_eight(tmp_path):
    """Not cut off at 255."""
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    save(tmp_path / "a.png", deep)
    assert [0, 0, 1, 255] == read_dataset(tmp_path).arrays["image"].ravel().tolist()


def test_other_sizes_are_resized_to_what_was_asked_for(tmp_path):
    """And refused, with both sizes, where nothing was."""
    save(tmp_path / "a.png", pixels(6, 8))
    save(tmp_path / "b.png", np.full((12, 12, 3), 77, np.uint8))

    found = read_dataset(tmp_path, image_size=(6, 8)).arrays["image"]

    np.testing.assert_array_equal(pixels(6, 8), found[0])
    np.testing.assert_array_equal(77, found[1])
    with pytest.raises(DatasetError, match=r"got a.png 8 by 6 and b.png 12 by 12"):
        read_dataset(tmp_path)


def test_real_photographs(tmp_path):
    """Crops of scikit-learn's photographs come back to the pixel from PNG."""
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    crops = [photo[:96, left : left + 96] for photo in photos for left in (0, 200)]
    for index, crop in enumerate(crops):
        save(tmp_path / "china" / f"{index}.png", crop)
    np.testing.assert_array_equal(np.stack(crops), read_dataset(tmp_path).arrays["image"])


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds nothing."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + ihdr
        + struct.pack(">I", zlib.crc32(ihdr))
        + struct.pack(">I", 9)
        + b"IDAT"
    )


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(40, 40)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no files"),
        ({"a.txt": b"hello"}, "a.txt is neither an image nor a WAV file$"),
        ({"a.txt": b"", "b.png": png(), "c": b""}, r"a.txt is neither .* \(nor are 1 other"),
        ({"a.png": png()[:-200]}, "a.png is a damaged image"),
        ({"a.png": png()[:20]}, "a.png is a damaged image"),
        ({"a.gif": b"GIF89a" + bytes(20)}, "a.gif"),
        ({"a.png": png_header(9000, 9000)}, "a.png must have 1 to 8192 pixels a side, got 9000"),
        ({"a.png": png_header(1 << 16, 1 << 16)}, "a.png is a damaged image: .* exceeds limit"),
        ({"a.png": png(), "cats/b.png": png()}, "subfolder 'cats' and the file 'a.png'"),
        ({"cats/deep/b.png": png()}, "class folder 'cats' must hold files only"),
        ({"a.png": png(), "b.wav": b"RIFF\0\0\0\0WAVE"}, "got both: 'a.png' and 'b.wav'"),
        ({"a\nb.png": png()}, "names must be printable"),
    ],
)
def test_what_is_no_folder_of_images_is_told(files, message, tmp_path):
    """In one line that names the file."""
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    """Nor opened."""
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a.png is not a regular file"):
        read_dataset(tmp_path)


def test_a_name_that_is_no_text_is_told(tmp_path):
    """A class must be something that can be written down."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    with pytest.raises(DatasetError, match="names must be printable"):
        read_dataset(tmp_path)


def test_numbers_and_sizes_are_bounded(tmp_path, monkeypatch):
    """Before anything is decoded."""
    for index in range(5):
        save(tmp_path / f"{index}.png", pixels())
    monkeypatch.setattr(dataset_folder, "MAX_ARRAY_BYTES", 5 * 6 * 8 * 3 - 1)
    with pytest.raises(DatasetError, match=r"5 images must be at most 719 bytes .*; resize them"):
        read_dataset(tmp_path)
    assert 5 == read_dataset(tmp_path, image_size=(5, 8)).rows
    monkeypatch.setattr(dataset_folder, "MAX_ONE_FILE_BYTES", 10)
    with pytest.raises(DatasetError, match=r"0.png must be at most 10 bytes"):
        read_dataset(tmp_path, image_size=(5, 8))
    monkeypatch.setattr(dataset_folder, "MAX_FILES", 4)
    with pytest.raises(DatasetError, match="must have at most 4 files"):
        read_dataset(tmp_path, image_size=(5, 8))


def test_a_folder_has_no_label_column(tmp_path):
    """What stands for it is said."""
    save(tmp_path / "a.png", pixels())
    with pytest.raises(DatasetError, match="names of its subfolders, got label 'y'"):
        read_dataset(tmp_path, label="y")


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    """Only for images; Pillow is not loaded otherwise."""
    save(tmp_path / "images" / "a.png", pixels())
    save_wav(tmp_path / "sounds" / "a.wav", np.arange(9))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DatasetError, match=r"needs Pillow: pip install 'edgepack\[data\]'"):
        read_dataset(tmp_path / "images")
    code = (
        "import sys, pathlib\nfrom edgepack.runtime.dataset import read_dataset\n"
        "read_dataset(pathlib.Path(sys.argv[1]))\nprint('PIL' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sounds")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "False" == result.stdout.strip()


@pytest.mark.parametrize(("width", "full"), [(1, 128), (2, 2**15), (3, 2**23), (4, 2**31)])
def test_pcm_of_every_width(width, full, tmp_path):
    """-1 is the smallest whole number, 0 is silence; 8 bits are unsigned."""
    shift = 128 if width == 1 else 0
    values = np.array([-full, 0, full // 2, full - 1])
    save_wav(tmp_path / "a.wav", values + shift, width=width)

    found = read_dataset(tmp_path)

    expected = (values / full).astype(np.float32)
    np.testing.assert_array_equal(expected[None], found.arrays["audio"])
    assert (np.float32, 8000) == (found.arrays["audio"].dtype, found.rate_hz)


def test_channels_are_mixed_and_lengths_made_one(tmp_path):
    """Short signals are filled up to the longest, or all to what was asked for."""
    save_wav(tmp_path / "up" / "a.wav", np.array([[16384, 0], [0, -16384], [8192, 8192]]))
    save_wav(tmp_path / "down" / "b.wav", np.array([32767 // 2]))

    found = read_dataset(tmp_path)
    short = read_dataset(tmp_path, audio_samples=2)
    long = read_dataset(tmp_path, audio_samples=5)

    assert ["down", "up"] == found.truth.tolist()
    assert [0.25, -0.25, 0.25] == found.arrays["audio"][1].tolist()
    assert [0.0, 0.0] == found.arrays["audio"][0, 1:].tolist()
    assert ((2, 3), (2, 2), (2, 5)) == tuple(
        item.arrays["audio"].shape for item in (found, short, long)
    )
    assert found.digest == short.digest


def riff(fmt: bytes, data: bytes, *more: bytes) -> bytes:
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"".join(more)
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def layout(tag: int, bits: int, channels: int = 1, rate: int = 8000) -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)


def test_what_the_standard_library_does_not_take():
    """Extensible headers, floats, odd chunks before the samples, and lengths of a pipe."""
    values = np.array([0.5, -1.0], "<f4")
    extensible = layout(0xFFFE, 16) + struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    piped = riff(layout(1, 16), b"")[:-4] + b"\xff\xff\xff\xff" + b"\0\x40"

    assert [0.5, -1.0] == parse_wav(riff(layout(3, 32), values.tobytes()), what="x")[1].tolist()
    assert [0.5] == parse_wav(riff(extensible, b"\0\x40", odd), what="x")[1].tolist()
    assert [0.5] == parse_wav(piped, what="x")[1].tolist()


GOOD = riff(layout(1, 16), b"\0\x40" * 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:-1], "is cut off"),
        (GOOD[:30], "is cut off"),
        (GOOD[:20], "is cut off"),
        (GOOD[:12], "it has no format or no samples"),
        (riff(layout(1, 16), b""), "has no samples"),
        (riff(layout(6, 8), b"ab"), "got encoding 6 of 8 bits"),
        (riff(layout(1, 12), b"ab"), "got encoding 1 of 12 bits"),
        (riff(layout(1, 16, channels=0), b"ab"), "0 channels"),
        (riff(layout(1, 16, rate=0), b"ab"), "0 Hz"),
        (riff(layout(1, 16)[:14] + b"\1\0", b"ab"), "got encoding 1 of 1 bits"),
        (riff(layout(3, 32), np.array([np.inf], "<f4").tobytes()), "samples must be finite"),
    ],
)
def test_a_bad_wav_file_is_told(data, message, tmp_path):
    """In one line with its name."""
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DatasetError, match=f"^a.wav.*{message}"):
        read_dataset(tmp_path)


def test_rates_must_be_one(tmp_path):
    """Resampling is not guessed."""
    save_wav(tmp_path / "a.wav", np.arange(9))
    save_wav(tmp_path / "b.wav", np.arange(9), rate=16000)
    with pytest.raises(DatasetError, match=r"got a.wav 8000 Hz and b.wav 16000 Hz"):
        read_dataset(tmp_path)


@given(st.binary(max_size=60), st.integers(0, len(GOOD)))
def test_whatever_a_wav_file_holds_is_read_or_refused(noise, place):
    """A value or the documented error, nothing else."""
    try:
        rate, signal = parse_wav(GOOD[:place] + noise + GOOD[place + len(noise) :], what="x")
    except DatasetError:
        return
    assert rate > 0
    assert signal.dtype == np.float32
    assert signal.ndim == 1


@given(st.binary(max_size=40), st.integers(0, 200))
def test_whatever_an_image_holds_is_read_or_refused(noise, place):
    """A value or the documented error, nothing else."""
    data = png()
    damaged = data[:place] + noise + data[place + len(noise) :]
    file = dataset_folder.FolderFile(path=Path("x.png"), name="x.png", kind="image")
    try:
        found = dataset_images._decode(Image, file, damaged, 3)
    except DatasetError:
        return
    assert (np.uint8, 3) == (found.dtype, found.shape[2])
