import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
from converter_models import opened
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_images

from edgepack.bundle.contract import Datatype
from edgepack.converter import ConvertReport, ConvertRequest, RequestError, convert
from edgepack.runtime import load
from edgepack.runtime.dataset import read_dataset

CLASSES = ("china", "flower")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of two photographs, one subfolder each, 48 by 40 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for name, photo in zip(CLASSES, load_sample_images().images, strict=True):
        (folder / name).mkdir()
        for index in range(60):
            top, left = 6 * (index // 10) * 8, 8 * (index % 10) * 6
            crop = photo[top : top + 40, left : left + 48]
            Image.fromarray(crop).save(folder / name / f"{index:03}.png")
    return folder


def convolution(path: Path, *, size: int, layout: str = "NCHW") -> None:
    """Conv, Relu, mean, softmax of two classes, on float images."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(16, 3, 3, 3)).astype(np.float32) / 5,
        "b": random.normal(size=16).astype(np.float32),
        "v": random.normal(size=(16, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "w", "b"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=1),
    ]
    shape = ["N", 3, size, size]
    name = "pixels"
    if layout == "NHWC":
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["pixels"], perm=[0, 3, 1, 2]))
        shape, name = ["N", size, size, 3], "image"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def converted(folder: Path, data: Path, recipe: str | None = None) -> ConvertReport:
    if recipe is not None:
        (folder / "recipe.toml").write_text(recipe)
    return convert(
        ConvertRequest(
            model=folder / "net.onnx",
            data=data,
            output=folder,
            recipe=None if recipe is None else folder / "recipe.toml",
        )
    )


RECIPE = """
[model]
name = "photos"
version = "2.0.0"

[convert]
calibration_rows = 20

[[pre]]
step = "resize"
height = 32
width = 32
antialias = true

[[pre]]
step = "normalize"
mean = [123.7, 116.3, 103.5]
std = [58.4, 57.1, 57.4]

[[pre]]
step = "layout"
to = "NCHW"
"""


def original(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"pixels": images})[0]
    return answer


def test_a_recipe_puts_steps_before_the_model(images: Path, tmp_path: Path) -> None:
    """Raw pixels go in; every variant answers as the original does on what Pillow makes of them."""
    convolution(tmp_path / "net.onnx", size=32)
    report = converted(tmp_path, images, RECIPE)
    assert "photos-2.0.0.edgepack" == report.path.name
    assert 20 == report.rows.calibration
    bundle = opened(report)
    assert ("pre",) == tuple(name for name in bundle.contract.requires if name == "pre")
    assert Datatype.UINT8 is bundle.contract.inputs[0].datatype
    raw = read_dataset(images).arrays["image"][:10]
    resized = [Image.fromarray(row).resize((32, 32), Image.Resampling.BILINEAR) for row in raw]
    pixels = np.stack([np.asarray(row) for row in resized]).astype(np.float32)
    mean = np.array([123.7, 116.3, 103.5], np.float32)
    std = np.array([58.4, 57.1, 57.4], np.float32)
    expected = original(tmp_path / "net.onnx", ((pixels - mean) / std).transpose(0, 3, 1, 2))
    for variant in bundle.contract.variants:
        with load(bundle, variant=variant.name) as model:
            got = model.predict({bundle.contract.inputs[0].name: raw})
        near = 0.01 if variant.precision == "fp32" else 0.1  # Pillow rounds at other places
        assert np.abs(got["probabilities"] - expected).max() < near
    assert {"onnx-fp32", "tflite-fp32"} <= {variant.name for variant in bundle.contract.variants}


def test_without_a_recipe_images_are_fitted_and_never_scaled(images: Path, tmp_path: Path) -> None:
    """Layout and size follow from the model; that pixels stay 0 to 255 is said."""
    convolution(tmp_path / "net.onnx", size=24, layout="NHWC")
    report = converted(tmp_path, images)
    steps = [step["step"] for step in opened(report).contract.pre]
    assert ["resize", "cast"] == steps
    assert any("0 to 255" in message for message in report.messages)


def test_steps_that_do_not_lead_to_the_model_are_refused(images: Path, tmp_path: Path) -> None:
    """One line: what the steps make, and what the model takes."""
    convolution(tmp_path / "net.onnx", size=16)
    with pytest.raises(RequestError, match=r"must make FP32 .*16, 16.* they make"):
        converted(tmp_path, images, RECIPE)
    assert [] == list(tmp_path.glob("*.edgepack"))


def test_images_of_several_sizes_take_the_models(images: Path, tmp_path: Path) -> None:
    """A folder with one image of another size is read at the size that the model takes."""
    folder = tmp_path / "mixed"
    for source in images.rglob("*.png"):
        target = folder / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    Image.new("RGB", (50, 50)).save(folder / "china" / "zzz.png")
    convolution(tmp_path / "net.onnx", size=24, layout="NHWC")
    report = converted(tmp_path, folder)
    assert (-1, 24, 24, 3) == opened(report).contract.inputs[0].shape


def test_sounds_become_log_mels(tmp_path: Path) -> None:
    """WAV files in class folders, a log-mel step, a model of spectrograms."""
    random = np.random.default_rng(0)
    for name, pitch in (("low", 300), ("high", 2000)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for index in range(45):
            time_s = np.arange(4000) / 8000
            signal = np.sin(2 * np.pi * pitch * (1 + 0.1 * random.random()) * time_s)
            samples = (signal * 12000 + random.normal(0, 300, 4000)).astype("<i2")
            with wave.open(str(tmp_path / "sounds" / name / f"{index}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(samples.tobytes())
    weights = {
        "w": np.concatenate([np.ones((10, 1)), -np.ones((10, 1))]).astype(np.float32) / 500,
        "v": np.array([[-1.0, 1.0]], np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "w"], ["s"]),
            helper.make_node("MatMul", ["s", "v"], ["t"]),
            helper.make_node("Softmax", ["t"], ["p"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["N", 30, 20])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    step = '[[pre]]\nstep = "log-mel"\nrate = 8000\nframe = 256\nhop = 128\nmels = 20\n'
    report = converted(tmp_path, tmp_path / "sounds", step)
    contract = opened(report).contract
    assert ((-1, 4000), Datatype.FP32) == (contract.inputs[0].shape, contract.inputs[0].datatype)
    assert report.variants[0].parity is not None
    assert 1.0 == report.variants[0].parity.value
