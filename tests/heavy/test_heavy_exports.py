"""Models that only torch, Keras or TensorFlow can make, exported to ONNX and converted by us."""

import subprocess
import sys

import numpy as np
import pytest

EDGEPACK = (sys.executable, "-m", "edgepack.cli.main")

# TensorFlow's present loader fails on a file of Keras 2.3; its v1 loader reads it.
FREEZE = """
import sys
import tensorflow as tf
import tf2onnx
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = loaded.signature_def["serving_default"]
    inputs = [tensor.name for tensor in signature.inputs.values()]
    outputs = [tensor.name for tensor in signature.outputs.values()]
    frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
        session, session.graph_def, [name.partition(":")[0] for name in outputs]
    )
tf2onnx.convert.from_graph_def(
    frozen, input_names=inputs, output_names=outputs, opset=17, output_path=sys.argv[2]
)
"""

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def convert(folder, model, data, *options):
    """Run `edgepack convert`; gives the loaded model of each variant, and what was said."""
    from edgepack.bundle import open_bundle
    from edgepack.runtime import load

    done = subprocess.run(
        [*EDGEPACK, "convert", model, "--data", data, "-o", folder, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    (path,) = folder.glob("*.edgepack")
    bundle = open_bundle(path)
    return {v.name: load(bundle, variant=v.name) for v in bundle.contract.variants}, done.stdout


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    return images, data.target.astype(np.int64)


def test_a_torch_network_keeps_its_answers_in_every_variant(tmp_path, digits):
    """A small convolutional network: fp32 equals torch, int8 stays within a point of it."""
    import torch

    images, labels = digits
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 10),
        torch.nn.Softmax(dim=1),
    )
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    train_x, train_y = torch.from_numpy(images[:1000]), torch.from_numpy(labels[:1000])
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(torch.log(network(train_x) + 1e-9), train_y).backward()
        optimizer.step()
    network.eval()
    file = tmp_path / "net.onnx"
    torch.onnx.export(
        network,
        (train_x[:1],),
        file,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_axes={"image": {0: "n"}, "probabilities": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    np.savez(tmp_path / "data.npz", image=images[1000:], y=labels[1000:])
    models, said = convert(tmp_path, file, tmp_path / "data.npz")
    with torch.no_grad():
        expected = network(torch.from_numpy(images[1000:])).numpy()
    assert (expected.argmax(1) == labels[1000:]).mean() > 0.8
    got = {name: model.predict({"image": images[1000:]}) for name, model in models.items()}
    fp32 = got["onnx-fp32"]["probabilities"]
    np.testing.assert_allclose(expected, fp32, rtol=1e-4, atol=1e-5)
    assert "onnx-int8" in got, said
    int8 = got["onnx-int8"]["probabilities"]
    assert (int8.argmax(1) == expected.argmax(1)).mean() >= 0.98


def test_a_tensorflow_model_with_convolutions_keeps_its_accuracy(tmp_path, shared_data):
    """The MLPerf Tiny keyword model, by tf2onnx: 91.3 % in fp32, and int8 within a point."""
    file = tmp_path / "kws.onnx"
    saved = shared_data / "mlperf_tiny" / "kws_saved_model"
    subprocess.run([sys.executable, "-c", FREEZE, saved, file], check=True, capture_output=True)
    with np.load(shared_data / "mlperf_tiny" / "kws01.npz") as packed:
        quantized = packed["mfcc_int8"].astype(np.float32)
        x = (quantized - packed["zero_point"]) * packed["scale"]
        labels = packed["label"].astype(np.int64)
    import onnxruntime

    from edgepack.runtime.engines.onnxruntime import session_options
    from edgepack.runtime.options import SessionOptions

    session = onnxruntime.InferenceSession(file, session_options(SessionOptions()))
    (node,) = session.get_inputs()
    np.savez(tmp_path / "data.npz", **{node.name: x.astype(np.float32), "y": labels})
    models, said = convert(tmp_path, file, tmp_path / "data.npz", "--name", "kws")
    accuracy = {}
    for name, model in models.items():
        outputs = model.predict({node.name: x.astype(np.float32)})
        scores = next(array for array in outputs.values() if array.ndim == 2)
        accuracy[name] = float((scores.argmax(1) == labels).mean())
    assert 0.913 == pytest.approx(accuracy["onnx-fp32"], abs=5e-4), said
    assert all(value >= 0.90 for value in accuracy.values()), accuracy


def test_a_keras_network_keeps_its_answers(tmp_path, digits, monkeypatch):
    """Keras 3 on torch, exported to ONNX by Keras itself."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    images, labels = digits
    x = images.reshape(len(images), 64)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(x[:1000], labels[:1000], epochs=30, verbose=0)
    expected = network.predict(x[1000:], verbose=0)
    file = tmp_path / "keras.onnx"
    network.export(file, format="onnx", verbose=False)
    import onnxruntime

    (node,) = onnxruntime.InferenceSession(file).get_inputs()
    np.savez(tmp_path / "data.npz", **{node.name: x[1000:], "y": labels[1000:]})
    models, _ = convert(tmp_path, file, tmp_path / "data.npz", "--name", "keras")
    outputs = models["onnx-fp32"].predict({node.name: x[1000:]})
    got = next(array for array in outputs.values() if array.ndim == 2)
    np.testing.assert_allclose(expected, got, rtol=1e-4, atol=1e-5)
