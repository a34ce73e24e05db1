"""The steps of `pre` against the libraries whose pipelines they stand for."""

import numpy as np
import pytest

from edgepack.runtime.preprocess import apply_steps, parse_steps

pytestmark = pytest.mark.heavy

SIZES = [((37, 53), (20, 31)), ((37, 53), (96, 80)), ((240, 320), (96, 96)), ((7, 5), (7, 9))]


def run(array: np.ndarray, *steps: dict) -> np.ndarray:
    parsed = parse_steps([{"input": "x", **step} for step in steps])
    return apply_steps(parsed, {"x": array})["x"]


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(
    ("method", "antialias"),
    [("nearest", False), ("bilinear", False), ("bilinear", True), ("area", False)],
)
def test_resize_is_tensorflows(old, new, method, antialias):
    """`tf.image.resize`, all methods."""
    tf = pytest.importorskip("tensorflow")
    x = np.random.default_rng(0).random((2, *old, 3), dtype=np.float32)
    step = {"step": "resize", "height": new[0], "width": new[1], "method": method}
    expected = tf.image.resize(x, new, method=method, antialias=antialias).numpy()
    np.testing.assert_allclose(expected, run(x, {**step, "antialias": antialias}), atol=1e-4)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(
    ("method", "mode", "antialias"),
    [
        ("nearest", "nearest-exact", False),
        ("bilinear", "bilinear", False),
        ("bilinear", "bilinear", True),
    ],
)
def test_resize_is_torchs(old, new, method, mode, antialias):
    """`torch.nn.functional.interpolate`, channels first."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).random((2, 3, *old), dtype=np.float32)
    more = {"antialias": antialias, "align_corners": False} if method == "bilinear" else {}
    expected = torch.nn.functional.interpolate(torch.from_numpy(x), new, mode=mode, **more).numpy()
    found = run(
        x,
        {
            "step": "resize",
            "height": new[0],
            "width": new[1],
            "method": method,
            "antialias": antialias,
            "layout": "NCHW",
        },
    )
    np.testing.assert_allclose(expected, found, atol=1e-4)


@pytest.mark.parametrize("power", [1, 2])
def test_spectrograms_are_tensorflows(power):
    """`tf.signal`: the log-mel spectrogram and its MFCC, as docs/recipe.md says it."""
    tf = pytest.importorskip("tensorflow")
    signal = np.random.default_rng(0).normal(size=(3, 16000)).astype(np.float32) / 3
    spectrum = tf.abs(tf.signal.stft(signal, 480, 320, 512)) ** power
    filters = tf.signal.linear_to_mel_weight_matrix(40, 257, 16000, 20.0, 4000.0)
    log_mel = tf.math.log(tf.matmul(spectrum, filters) + 1e-6)
    mfcc = tf.signal.mfccs_from_log_mel_spectrograms(log_mel)[..., :10]
    step = {
        "step": "log-mel",
        "rate": 16000,
        "frame": 480,
        "hop": 320,
        "mels": 40,
        "low_hz": 20.0,
        "high_hz": 4000.0,
        "triangles": "mel",
        "power": power,
        "floor": 0.0,
        "offset": 1e-6,
    }

    found = run(signal, step)
    coefficients = run(signal, step, {"step": "dct", "keep": 10, "norm": "htk"})

    np.testing.assert_allclose(log_mel.numpy(), found, atol=1e-4)
    np.testing.assert_allclose(mfcc.numpy(), coefficients, atol=2e-4)
