"""From folders of images and sounds, with and without a recipe, to bundles that take raw data."""

import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
from converter_models import opened
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from support.image_bundle import colour_images

from edgepack.bundle.contract import Datatype, Nonfinite
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.errors import ConvertError, UnfitDataError
from edgepack.runtime import load, parse_golden
from edgepack.runtime.dataset import read_dataset
from edgepack.runtime.errors import DatasetError
from edgepack.runtime.preprocess import apply_steps, parse_steps

ROWS = 120
SIDE = 32
RECIPE = """
[model]
name = "colours"
version = "3.0.0"

[convert]
formats = ["onnx"]
precision = ["fp32", "int8"]
max_drop = 0.05

[[pre]]
step = "resize"
height = 16
width = 16
antialias = true

[[pre]]
step = "scale"
factor = 0.00392156862745098

[[pre]]
step = "normalize"
mean = [0.4, 0.4, 0.4]
std = [0.2, 0.2, 0.2]

[[pre]]
step = "layout"
to = "NCHW"
"""


def network(inputs: tuple[str, list[int | str]], nodes: list, constants: dict) -> bytes:
    """An ONNX file with scores of three classes."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, inputs[1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def colours(size: int, *, scale: float) -> bytes:
    """Blue, green or red, in the order of their names; takes (N, 3, size, size)."""
    copies = 32  # of each colour: so many weights that int8 is smaller
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3 * copies, 3, 3, 3)).astype(np.float32) / 200
    for index in range(3 * copies):
        mixing[index, 2 - index % 3, 1, 1] += 1
    joining = np.tile(np.eye(3, dtype=np.float32), (copies, 1)) * np.float32(scale / copies)
    constants = {"mixing": mixing, "joining": joining}
    nodes = [
        helper.make_node("Conv", ["pixels", "mixing"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "joining"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    return network(("pixels", ["N", 3, size, size]), nodes, constants)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subfolder for each colour."""
    folder = tmp_path_factory.mktemp("photos")
    for row, (image, label) in enumerate(zip(*colour_images(ROWS, side=SIDE), strict=True)):
        path = folder / label / f"{row:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def test_a_recipe_leads_from_photographs_to_a_bundle(photos, tmp_path):
    """Callers give bytes; calibration, golden samples and devices run the same steps."""
    (tmp_path / "m.onnx").write_bytes(colours(16, scale=4.0))
    (tmp_path / "r.toml").write_text(RECIPE)

    report = convert(
        ConvertRequest(
            model=tmp_path / "m.onnx",
            data=photos,
            recipe=tmp_path / "r.toml",
            output=tmp_path / "out",
        )
    )

    assert ("colours", "3.0.0") == (report.name, report.version)
    bundle = opened(report)
    contract = bundle.contract
    (spec,) = contract.inputs
    assert (Datatype.UINT8, (-1, -1, -1, 3)) == (spec.datatype, spec.shape)
    assert ["resize", "scale", "normalize", "layout"] == [step["step"] for step in contract.pre]
    assert "pre" in contract.requires
    assert contract.reference is None  # images of any size have no columns to watch
    golden = parse_golden(bundle.read(contract.golden), contract)
    assert (np.uint8, (SIDE, SIDE, 3)) == (
        golden.inputs["pixels"].dtype,
        golden.inputs["pixels"].shape[1:],
    )
    data = read_dataset(photos)
    for variant in contract.variants:
        assert variant.parity.figures["accuracy_original"] == 1.0
        with load(bundle, variant=variant.name) as model:
            found = model.predict({"pixels": data.arrays["image"]})["label"]
        names = np.array(["blue", "green", "red"], dtype=object)[found.astype(int)]
        assert (names == data.truth).mean() > 0.95, variant.name


def test_without_a_recipe_steps_are_made_and_said(photos, tmp_path):
    """Resized, coloured and laid out for the model; values stay 0 to 255."""
    (tmp_path / "m.onnx").write_bytes(colours(16, scale=0.02))

    report = convert(
        ConvertRequest(
            model=tmp_path / "m.onnx",
            data=photos,
            output=tmp_path / "out",
            formats=("onnx",),
        )
    )

    contract = opened(report).contract
    assert ["resize", "cast", "layout"] == [step["step"] for step in contract.pre]
    assert ("blue", "green", "red") == contract.class_names
    said = " ".join(report.messages)
    assert "pixels go into the model as 0 to 255" in said
    assert "images are resized from 32 by 32 to 16 by 16" in said
    assert "0 blue, 1 green, 2 red" in said
    assert contract.variants[0].parity.figures["accuracy_original"] == 1.0


MEL = {"rate": 8000, "frame": 256, "hop": 128, "mels": 16, "offset": 1e-3}
WAV_RECIPE = """
[convert]
formats = ["onnx"]
precision = "fp32"

[[pre]]
step = "window"
length = 2048

[[pre]]
step = "log-mel"
rate = 8000
frame = 256
hop = 128
mels = 16
offset = 1e-3
"""


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of three heights, 16 bits, of several lengths."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for row in range(90):
        name, hz = [("high", 3000), ("low", 300), ("middle", 1000)][row % 3]
        time_s = np.arange(1500 + 10 * row) / 8000
        signal = 0.4 * np.sin(2 * np.pi * hz * time_s + row) + 0.02 * rng.normal(size=len(time_s))
        (folder / name).mkdir(exist_ok=True)
        with wave.open(str(folder / name / f"{row:02}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((signal * 32767).astype("<i2").tobytes())
    return folder


def listener(folder: Path) -> bytes:
    """Nearest mean spectrogram, as a network: takes (N, 15, 16)."""
    data = read_dataset(folder, audio_samples=2048)
    steps = parse_steps([{"step": "log-mel", "input": "audio", **MEL}])
    features = apply_steps(steps, data.arrays)["audio"]
    means = np.stack([features[data.truth == name].mean(axis=0) for name in data.classes])
    flat = means.reshape(3, -1).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["mel"], ["flat"]),
        helper.make_node("Gemm", ["flat", "means", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    bias = (-(flat**2).sum(axis=1) / 2).astype(np.float32)
    shape = ["N", *features.shape[1:]]
    return network(("mel", shape), nodes, {"means": flat / 50, "bias": bias / 50})


def test_a_recipe_leads_from_sounds_to_a_bundle(tones, tmp_path):
    """The spectrogram is computed on the device; callers give samples of any length."""
    (tmp_path / "m.onnx").write_bytes(listener(tones))
    (tmp_path / "r.toml").write_text(WAV_RECIPE)

    report = convert(
        ConvertRequest(
            model=tmp_path / "m.onnx",
            data=tones,
            recipe=tmp_path / "r.toml",
            output=tmp_path / "out",
        )
    )

    bundle = opened(report)
    (spec,) = bundle.contract.inputs
    assert (Datatype.FP32, (-1, -1)) == (spec.datatype, spec.shape)
    assert bundle.contract.variants[0].parity.figures["accuracy_original"] > 0.95
    data = read_dataset(tones)
    with load(bundle) as model:
        found = model.predict({"mel": data.arrays["audio"]})["label"]
    assert (np.array(data.classes, dtype=object)[found.astype(int)] == data.truth).mean() > 0.95


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[[pre]]\nstep = 'scale'\nfactor = 0.5", "the steps must make FP32 [-1, 3, 16, 16]"),
        ("[[pre]]\nstep = 'blur'", "step must be one of"),
        ("[[pre]]\nstep = 'scale'\ninput = 'x'", "input must be one of 'pixels', got 'x'"),
        ("[data]\nimage_size = [16]", "image_size must be [height, width]"),
    ],
)
def test_a_recipe_that_does_not_do_is_one_line(recipe, message, photos, tmp_path):
    """And nothing is left behind."""
    (tmp_path / "m.onnx").write_bytes(colours(16, scale=4.0))
    (tmp_path / "r.toml").write_text(recipe)
    request = ConvertRequest(
        model=tmp_path / "m.onnx", data=photos, recipe=tmp_path / "r.toml", output=tmp_path / "out"
    )
    with pytest.raises((ConvertError, DatasetError)) as caught:
        convert(request)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nan_in_signals_is_one_line(tmp_path, tones):
    """A spectrogram has no missing values."""
    (tmp_path / "m.onnx").write_bytes(listener(tones))
    (tmp_path / "r.toml").write_text(WAV_RECIPE)
    signals = read_dataset(tones, audio_samples=2048).arrays["audio"]
    signals[3, 7] = np.nan
    np.savez(tmp_path / "data.npz", mel=signals)
    request = ConvertRequest(
        model=tmp_path / "m.onnx",
        data=tmp_path / "data.npz",
        recipe=tmp_path / "r.toml",
        output=tmp_path / "out",
    )
    with pytest.raises(UnfitDataError, match=r"the data has it in 'mel7' \(only row 4\)"):
        convert(request)


def test_steps_before_a_model_of_columns(tmp_path):
    """What a model would answer to NaN is not asked where steps come first."""
    rows = np.random.default_rng(0).normal(size=(100, 4))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    weights = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    (tmp_path / "m.onnx").write_bytes(network(("x", ["N", 4]), nodes, {"w": weights}))
    (tmp_path / "r.toml").write_text('[[pre]]\nstep = "cast"\ndatatype = "FP32"\n')
    np.savez(tmp_path / "data.npz", x=rows.round(3).astype(np.float32), y=np.arange(100) % 3)

    report = convert(
        ConvertRequest(
            model=tmp_path / "m.onnx",
            data=tmp_path / "data.npz",
            recipe=tmp_path / "r.toml",
            output=tmp_path / "out",
            formats=("onnx",),
        )
    )

    assert Nonfinite.REJECT is opened(report).contract.inputs[0].nonfinite
