"""The steps of `pre` compute what their page says: against plain loops, and to the bit."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.runtime import preprocess, preprocess_signals
from edgepack.runtime.errors import InputError
from edgepack.runtime.preprocess import Preparation, apply_steps, parse_steps


def run(array: np.ndarray, *steps: dict) -> np.ndarray:
    parsed = parse_steps([{"input": "x", **step} for step in steps])
    return apply_steps(parsed, {"x": array})["x"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_scale_is_a_product_and_a_sum_in_float32():
    """Whole numbers become float32, one rounding for each operation; float64 stays."""
    found = run(pixels(2, 3), {"step": "scale", "factor": 1 / 255, "offset": -0.5})
    wide = run(np.array([[0.1]]), {"step": "scale", "factor": 3.0})

    expected = pixels(2, 3).astype(np.float32) * np.float32(1 / 255) + np.float32(-0.5)
    np.testing.assert_array_equal(expected, found)
    assert ("float32", "float64") == (found.dtype, wide.dtype)
    assert [[0.1 * 3.0]] == wide.tolist()


@pytest.mark.parametrize("axis", [-1, 1])
def test_normalize_is_per_index_of_an_axis(axis):
    """The mean is taken off and the rest divided, for each channel."""
    x = noise(2, 3, 4, 3)
    step = {"step": "normalize", "mean": [0.1, 0.2, 0.3], "std": [1, 2, 4], "axis": axis}
    found = run(x, step)

    for index, (mean, std) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)]):
        expected = (x.take(index, axis) - np.float32(mean)) / np.float32(std)
        np.testing.assert_array_equal(expected, found.take(index, axis))


def test_one_mean_is_for_all():
    """A single number needs no number of channels."""
    found = run(pixels(1, 5), {"step": "normalize", "mean": [127.5], "std": [127.5]})
    np.testing.assert_allclose(pixels(1, 5) / 127.5 - 1, found, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "datatype", "expected"),
    [
        ([-0.5, 0.5, 1.5, 2.5, 999.0, -999.0], "UINT8", [0, 0, 2, 2, 255, 0]),
        ([-128.5, -129, 127.5, 1e30], "INT8", [-128, -128, 127, 127]),
        ([2.0**63, -(2.0**63)], "INT64", [2**63 - 1, -(2**63)]),
        (np.array([300, -1], np.int64), "UINT8", [255, 0]),
        (np.array([300], np.int64), "INT32", [300]),
        (np.array([2**64 - 1], np.uint64), "INT64", [2**63 - 1]),
        (np.array([-1], np.int8), "UINT64", [0]),
        (np.array([True, False]), "UINT8", [1, 0]),
        ([0.0, 0.5, -1.0], "BOOL", [False, True, True]),
        (np.array([7], np.uint8), "FP32", [7.0]),
    ],
)
def test_cast_rounds_to_even_and_saturates(given, datatype, expected):
    """At the limits of every type, those included that floats cannot hold."""
    found = run(np.array(given)[None], {"step": "cast", "datatype": datatype})
    assert [expected] == found.tolist()


def test_what_is_not_finite_has_no_whole_number():
    """It says which input and which step."""
    with pytest.raises(InputError, match="input 'x', cast: values must be finite"):
        run(np.array([[np.nan]]), {"step": "cast", "datatype": "INT8"})


def test_dimensions_are_moved():
    """Layouts there and back, other orders, other shapes."""
    x = noise(2, 3, 4, 5)
    there = run(x, {"step": "layout", "to": "NCHW"})

    np.testing.assert_array_equal(np.moveaxis(x, 3, 1), there)
    np.testing.assert_array_equal(x, run(there, {"step": "layout", "to": "NHWC"}))
    np.testing.assert_array_equal(
        x.swapaxes(1, 2), run(x, {"step": "transpose", "axes": [0, 2, 1, 3]})
    )
    np.testing.assert_array_equal(
        x.reshape(2, 12, 5), run(x, {"step": "reshape", "shape": [12, 5]})
    )
    assert there.flags.c_contiguous


def weight(method: str, antialias: bool, old: int, new: int, to: int, place: int) -> float:
    """How much the pixel at `place`, which may lie outside, counts for the new pixel `to`."""
    if method == "area":
        begin, end = to * old / new, (to + 1) * old / new
        return max(0.0, min(place + 1, end) - max(place, begin)) / (end - begin)
    wide = max(1.0, old / new) if antialias else 1.0
    return max(0.0, 1 - abs(place + 0.5 - (to + 0.5) * old / new) / wide)


def resized_line(line: list[float], new: int, method: str, antialias: bool) -> list[float]:
    """One row of pixels, by the words of the page."""
    old = len(line)
    made = []
    for to in range(new):
        if method == "nearest":
            made.append(line[min(old - 1, math.floor((to + 0.5) * old / new))])
            continue
        total = weights = 0.0
        for place in range(-old, 2 * old):
            counts = weight(method, antialias, old, new, to, place)
            if antialias and not 0 <= place < old:
                continue
            total += counts * line[min(max(place, 0), old - 1)]
            weights += counts
        made.append(total / weights)
    return made


SIZES = [(7, 5), (5, 7), (9, 3), (1, 4), (4, 1), (6, 6), (31, 20)]


@pytest.mark.parametrize(
    ("method", "antialias"),
    [("nearest", False), ("bilinear", False), ("bilinear", True), ("area", False)],
)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resize_is_what_the_page_says(method, antialias, old, new):
    """Against plain loops, along the height and along the width."""
    x = noise(2, old, 3, 2)
    step = {"step": "resize", "method": method, "antialias": antialias}
    expected = np.empty((2, new, 3, 2))
    for place in np.ndindex(2, 3, 2):
        sample, column, channel = place
        expected[sample, :, column, channel] = resized_line(
            x[sample, :, column, channel].tolist(), new, method, antialias
        )

    found = run(x, {**step, "height": new, "width": 3})
    across = run(x.swapaxes(1, 2), {**step, "height": 3, "width": new})
    first = run(np.moveaxis(x, 3, 1), {**step, "height": new, "width": 3, "layout": "NCHW"})

    np.testing.assert_allclose(expected, found, atol=2e-6)
    np.testing.assert_array_equal(found, across.swapaxes(1, 2))
    np.testing.assert_array_equal(found, np.moveaxis(first, 1, 3))


def test_bytes_stay_bytes():
    """A resized image of bytes is rounded, half to even, and never wraps round."""
    x = np.array([0, 1, 2, 255], np.uint8).reshape(1, 1, 4, 1)
    found = run(x, {"step": "resize", "height": 1, "width": 2, "method": "area"})

    assert np.uint8 == found.dtype
    assert [0, 128] == found.ravel().tolist()  # 0.5 and 128.5


@pytest.mark.parametrize("method", ["nearest", "bilinear", "area"])
def test_an_image_of_the_right_size_is_untouched(method):
    """Bit by bit."""
    x = noise(1, 5, 6, 3)
    step = {"step": "resize", "height": 5, "width": 6, "method": method}
    np.testing.assert_array_equal(x, run(x, step))


def test_the_middle_is_cut_out():
    """Of an odd rest the larger half is cut off at the end."""
    x = noise(1, 7, 6, 1)
    found = run(x, {"step": "center-crop", "height": 4, "width": 2})
    np.testing.assert_array_equal(x[:, 1:5, 2:4], found)
    with pytest.raises(InputError, match="center-crop: images must be at least 8 by 2, got 7 by 6"):
        run(x, {"step": "center-crop", "height": 8, "width": 2})


def test_gray_is_what_pillow_computes():
    """For bytes; floats are weighted in floats, and gray has three equal channels in colour."""
    image = pytest.importorskip("PIL.Image")
    x = pixels(3, 40, 50, 3)
    expected = np.stack([np.asarray(image.fromarray(one).convert("L")) for one in x])[..., None]

    gray = run(x, {"step": "channels", "to": 1})
    floats = run(x.astype(np.float32), {"step": "channels", "to": 1})
    first = run(np.moveaxis(x, 3, 1), {"step": "channels", "to": 1, "layout": "NCHW"})
    colour = run(gray, {"step": "channels", "to": 3})

    np.testing.assert_array_equal(expected, gray)
    np.testing.assert_array_equal(expected, np.moveaxis(first, 1, 3))
    np.testing.assert_allclose(expected, floats, atol=0.51)
    np.testing.assert_array_equal(np.repeat(expected, 3, axis=3), colour)
    np.testing.assert_array_equal(x, run(x, {"step": "channels", "to": 3}))


@pytest.mark.parametrize(
    ("place", "longer", "shorter"),
    [
        ("start", [0, 1, 2], [0, 1, 9]),
        ("center", [1, 2, 3], [0, 1, 9]),
        ("end", [2, 3, 4], [9, 0, 1]),
    ],
)
def test_a_window_cuts_or_fills_up(place, longer, shorter):
    """What is kept, and where a short signal lies."""
    step = {"step": "window", "length": 3, "place": place, "value": 9.0}
    assert [longer] == run(np.arange(5, dtype=np.int16)[None], step).tolist()
    assert [shorter] == run(np.arange(2, dtype=np.int16)[None], step).tolist()


def test_a_window_has_frames():
    """With several channels; a rest is dropped."""
    x = noise(2, 8, 3)
    found = run(x, {"step": "window", "length": 8, "frame": 3, "hop": 2})
    assert (2, 3, 3, 3) == found.shape
    for frame in range(3):
        np.testing.assert_array_equal(x[:, 2 * frame : 2 * frame + 3], found[:, frame])


def htk(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def slaney(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def inverse(to_mel, mel: float, high: float) -> float:
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if to_mel(middle) < mel else (low, middle)
    return low


def naive_energies(
    signal, rate, frame, hop, fft, mels, low_hz, high_hz, to_mel, sides, norm, power
):
    """Mel energies of a signal by the discrete Fourier transform's definition."""
    low, high = to_mel(low_hz), to_mel(high_hz)
    points = [low + (high - low) * index / (mels + 1) for index in range(mels + 2)]
    hertz = [inverse(to_mel, point, rate) for point in points]
    found = []
    for begin in range(0, len(signal) - frame + 1, hop):
        row = []
        spectrum = []
        for bin_ in range(fft // 2 + 1):
            real = imaginary = 0.0
            for i in range(frame):
                value = signal[begin + i] * (0.5 - 0.5 * math.cos(2 * math.pi * i / frame))
                real += value * math.cos(2 * math.pi * bin_ * i / fft)
                imaginary -= value * math.sin(2 * math.pi * bin_ * i / fft)
            spectrum.append(math.hypot(real, imaginary) ** power)
        for mel in range(mels):
            energy = 0.0
            for bin_, strength in enumerate(spectrum):
                hz = bin_ * rate / fft
                place, edges = (to_mel(hz), points) if sides == "mel" else (hz, hertz)
                left, centre, right = edges[mel : mel + 3]
                rise, fall = (place - left) / (centre - left), (right - place) / (right - centre)
                energy += strength * max(0.0, min(rise, fall))
            if norm == "slaney":
                energy *= 2 / (hertz[mel + 2] - hertz[mel])
            row.append(energy)
        found.append(row)
    return np.array(found)


@pytest.mark.parametrize(
    ("scale", "sides", "norm", "power", "log"),
    [
        ("htk", "hz", "none", 2, "ln"),
        ("htk", "mel", "none", 1, "log10"),
        ("slaney", "hz", "slaney", 2, "db"),
        ("slaney", "mel", "none", 1, "db"),
    ],
)
def test_log_mel_is_what_the_page_says(scale, sides, norm, power, log):
    """Against the transform's definition and the filters' formulas, in plain loops."""
    signal = noise(1, 100) - 0.5
    energies = naive_energies(
        signal[0].tolist(), 8000, 40, 25, 64, 5, 100.0, 3500.0,
        {"htk": htk, "slaney": slaney}[scale], sides, norm, power,
    )  # fmt: skip
    expected = {
        "ln": np.log(energies + 1e-3),
        "log10": np.log10(energies + 1e-3),
        "db": (10 if power == 2 else 20) * np.log10(energies + 1e-3),
    }[log]

    found = run(
        signal,
        {"step": "log-mel", "rate": 8000, "frame": 40, "hop": 25, "fft": 64, "mels": 5,
         "low_hz": 100.0, "high_hz": 3500.0, "scale": scale, "triangles": sides, "norm": norm,
         "power": power, "log": log, "floor": 0.0, "offset": 1e-3},
    )  # fmt: skip

    assert (1, 3, 5) == found.shape
    assert np.float32 == found.dtype
    np.testing.assert_allclose(expected, found[0], atol=2e-5)


@pytest.mark.parametrize("norm", ["ortho", "htk"])
def test_the_cosine_transform_is_what_the_page_says(norm):
    """Against its formula, in plain loops."""
    x = noise(2, 3, 12)
    found = run(x, {"step": "dct", "keep": 5, "norm": norm})
    assert ((2, 3, 5), np.float32) == (found.shape, found.dtype)
    for place in np.ndindex(2, 3, 5):
        k = place[2]
        total = sum(
            float(value) * math.cos(math.pi * k * (i + 0.5) / 12)
            for i, value in enumerate(x[place[:2]])
        )
        factor = math.sqrt(2 / 12) / (math.sqrt(2) if k == 0 and norm == "ortho" else 1)
        assert found[place] == pytest.approx(total * factor, abs=1e-6)


def test_silence_has_the_logarithm_of_the_floor():
    """And an empty filter, narrower than a bin, too."""
    step = {"step": "log-mel", "rate": 8000, "frame": 16, "hop": 16, "mels": 40}
    found = run(np.zeros((1, 32), np.float32), step)
    np.testing.assert_allclose(np.full((1, 2, 40), math.log(1e-10)), found, rtol=1e-6)


def test_a_signal_that_is_too_short_is_told():
    """Where the contract leaves its length free, only the values tell."""
    with pytest.raises(InputError, match="log-mel: a signal must have at least 16 samples, got 5"):
        run(noise(1, 5), {"step": "log-mel", "rate": 8, "frame": 16, "hop": 1, "mels": 2})


CHAIN = (
    {"step": "resize", "height": 11, "width": 9, "antialias": True},
    {"step": "normalize", "mean": [100.0, 110.0, 120.0], "std": [50.0, 60.0, 70.0]},
    {"step": "layout", "to": "NCHW"},
)
MEL = {"step": "log-mel", "rate": 8000, "frame": 200, "hop": 80, "mels": 12}


@pytest.mark.parametrize(
    ("array", "steps"),
    [(pixels(9, 32, 40, 3), CHAIN), (noise(9, 800) - 0.5, (MEL, {"step": "dct", "keep": 5}))],
    ids=["images", "signals"],
)
def test_a_batch_gives_what_single_samples_give(array, steps, monkeypatch):
    """Bit by bit, in chunks of any size; and none gives none."""
    whole = run(array, *steps)
    singles = np.concatenate([run(array[row : row + 1], *steps) for row in range(len(array))])
    monkeypatch.setattr(preprocess, "CHUNK_VALUES", 1)
    monkeypatch.setattr(preprocess_signals, "BLOCK_VALUES", 600)

    np.testing.assert_array_equal(whole, singles)
    np.testing.assert_array_equal(whole, run(array, *steps))
    assert (0, *whole.shape[1:]) == run(array[:0], *steps).shape


def test_shapes_are_what_was_promised():
    """Applying steps gives the datatype and shape that inference told."""
    spec = TensorSpec(name="x", datatype=Datatype.UINT8, shape=(-1, 32, 40, 3))
    prepared = Preparation([spec], parse_steps([{"input": "x", **step} for step in CHAIN]))
    (found,) = prepared.apply([pixels(2, 32, 40, 3)])

    assert ((-1, 3, 11, 9), Datatype.FP32) == (
        prepared.outputs[0].shape,
        prepared.outputs[0].datatype,
    )
    assert ((2, 3, 11, 9), np.float32) == (found.shape, found.dtype)


def test_images_come_out_to_the_bit():
    """The digest of a whole chain: no machine, numpy or processor may give another."""
    image = (np.arange(2 * 37 * 53 * 3) * 37 % 251).astype(np.uint8).reshape(2, 37, 53, 3)
    found = run(image, *CHAIN)
    digest = hashlib.sha256(found.astype("<f4").tobytes()).hexdigest()
    assert "c53db942dd7ef387" == digest[:16]


DIGESTS = """
import hashlib
import numpy as np
from edgepack.runtime.preprocess import apply_steps, parse_steps
image = (np.arange(2 * 37 * 53 * 3) * 37 % 251).astype(np.uint8).reshape(2, 37, 53, 3)
sound = ((np.arange(2 * 4000) * 7919 % 1000) / 500 - 1).astype(np.float32).reshape(2, 4000)
size = {"step": "resize", "input": "x", "height": 20, "width": 71}
steps = [
    (image, {**size, "method": "bilinear"}),
    (image.astype(np.float32), {**size, "method": "bilinear", "antialias": True}),
    (image.astype(np.float32), {**size, "method": "area"}),
    (sound, {"step": "log-mel", "input": "x", "rate": 8000, "frame": 200, "hop": 80, "mels": 12}),
]
for array, step in steps:
    found = apply_steps(parse_steps([step]), {"x": array})["x"]
    print(hashlib.sha256(found.tobytes()).hexdigest())
"""


def test_a_plainer_processor_computes_the_same():
    """Without the vector instructions that numpy chooses while it runs."""
    name = "_multiarray_umath"  # numpy 2 has moved it
    core = sys.modules.get(f"numpy._core.{name}") or sys.modules[f"numpy.core.{name}"]
    features = [item for item in core.__cpu_dispatch__ if core.__cpu_features__[item]]
    found = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGESTS],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(disabled)},
        ).stdout
        for disabled in ([], features)
    ]
    assert 4 == len(found[0].splitlines())
    assert found[0] == found[1]


def test_steps_are_only_loaded_for_models_that_have_some():
    """Models without `pre` pay nothing."""
    code = (
        "import sys, edgepack.runtime.model, edgepack.bundle.contract_codec\n"
        "print([name for name in sys.modules if '.pre' in name])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "[]" == result.stdout.strip()
