"""Keras models from .keras and HDF5 files, to both formats, against Keras's own answers."""

import base64
import json
import marshal
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from support.model_child import answers, export, kind_of, model_child, rows_for

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.errors import (
    ModelFileError,
    RequestError,
    UnfitDataError,
    UnsafeModelError,
    UnsupportedModelError,
)
from edgepack.converter.sources.source import ArrayShape
from edgepack.runtime import load

h5py = pytest.importorskip("h5py", reason="make test-heavy installs Keras")

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def keras():
    """Keras on torch, as the child has it."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    return keras


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    with model_child("keras_file", tmp_path_factory.mktemp("scratch")) as running:
        yield running


@pytest.fixture(scope="module")
def trained(keras):
    """A small convolutional network trained on digits, the digits that it has not seen, labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(6.0),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(images[:1200], data.target[:1200], epochs=6, batch_size=64, verbose=0)
    return network, images[1200:], data.target[1200:].astype(np.int64)


def predicted(network, *arrays):
    return network.predict(arrays[0] if len(arrays) == 1 else list(arrays), verbose=0)


def test_a_trained_network_keeps_its_answers_and_the_terminal_stays_clean(trained, tmp_path):
    """The command converts a .keras file to both formats; nothing of a library's is printed."""
    network, images, labels = trained
    network.save(tmp_path / "digits.keras")
    np.savez(tmp_path / "test.npz", image=images, y=labels)
    command = [sys.executable, "-m", "edgepack.cli.main", "convert", tmp_path / "digits.keras"]
    done = subprocess.run(
        [*command, "--data", tmp_path / "test.npz", "-o", tmp_path, "--precision", "fp32"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    said = done.stdout + done.stderr
    for word in ("Warning", "keras.src", "absl", "torch.", "TensorFlow", "Traceback", "LiteRT-"):
        assert word not in said
    (path,) = tmp_path.glob("*.edgepack")
    bundle = open_bundle(path)
    expected = predicted(network, images)
    assert (expected.argmax(1) == labels).mean() > 0.85
    assert {"onnx-fp32", "tflite-fp32"} == {v.name for v in bundle.contract.variants}
    for variant in bundle.contract.variants:
        got = load(bundle, variant=variant.name).predict({"image": images})
        np.testing.assert_allclose(expected, got["probabilities"], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(expected.argmax(1), got["label"])


def test_old_wake_words_convert_in_both_formats(tmp_path, shared_data):
    """An HDF5 file that Keras 3 refuses: fp32 within 1e-4 on natural images, int8 agrees."""
    from sklearn.datasets import load_sample_images

    crops = [
        image[top : top + 96, left : left + 96]
        for image in load_sample_images().images
        for top in range(0, image.shape[0] - 95, 48)
        for left in range(0, image.shape[1] - 95, 48)
    ]
    images = (np.stack(crops) / 255).astype(np.float32)
    np.savez(tmp_path / "crops.npz", input_1=images)
    report = convert(
        ConvertRequest(
            model=shared_data / "mlperf_tiny" / "vww_96.h5",
            data=tmp_path / "crops.npz",
            output=tmp_path,
        )
    )
    assert any("groups=1 was dropped from 13 DepthwiseConv2D" in m for m in report.messages)
    bundle = open_bundle(report.path)
    found = {
        variant.name: load(bundle, variant=variant.name).predict({"input_1": images})
        for variant in bundle.contract.variants
    }
    expected = _interpreted(shared_data / "mlperf_tiny" / "vww_96_float.tflite", images)
    for name in ("onnx-fp32", "tflite-fp32"):
        assert np.abs(expected - found[name]["probabilities"]).max() < 1e-4
    for start in ("onnx-int8", "tflite-int8"):
        agreement = {
            name: float((answer["label"] == expected.argmax(1)).mean())
            for name, answer in found.items()
            if name.startswith(start)
        }
        assert agreement, report.variants
        assert min(agreement.values()) >= 0.97, agreement


def _interpreted(path, images):
    """What the authors' own float file answers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (given,), (asked,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(asked["index"])[0])
    return np.stack(rows)


@pytest.mark.parametrize("name", ["digits.keras", "digits.h5", "renamed.bin"])
def test_files_are_told_apart_by_content(name, trained, child, tmp_path):
    """Whatever its name, a file answers as Keras did; layers are merged for quantization."""
    import onnx

    network, images, _ = trained
    saved = tmp_path / ("digits.keras" if name == "renamed.bin" else name)
    network.save(saved)
    path = saved.rename(tmp_path / name)
    assert ("HDF5 file (Keras)" if name.endswith("h5") else "Keras model") == kind_of(path)
    model = child.load(path)
    facts = model.facts()
    assert ("Keras", ("onnx", "tflite")) == (facts.framework, facts.formats)
    assert ["image"] == [spec.name for spec in facts.inputs]
    expected = predicted(network, images)
    got = model.run(Task.CLASSIFICATION, {"image": images})
    np.testing.assert_allclose(expected, got["probabilities"], rtol=1e-5, atol=1e-6)
    graph = onnx.load_model_from_string(export(model, Task.CLASSIFICATION, "onnx").data).graph
    kinds = [node.op_type for node in graph.node]
    assert {"Sub", "Mul", "Add"}.isdisjoint(kinds), kinds
    assert 2 == kinds.count("Conv")


def several(keras):
    """Two inputs, one of them numbers of words, and two outputs."""
    words = keras.Input((6,), name="words", dtype="int32")
    values = keras.Input((4,), name="values")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 5)(words))
    joined = keras.layers.Concatenate()([embedded, values])
    outputs = [keras.layers.Dense(3, name="first")(joined), keras.layers.Dense(2)(joined)]
    return keras.Model([words, values], outputs)


def recurrent(keras):
    layers = keras.layers
    parts = [keras.Input((12, 3)), layers.Bidirectional(layers.LSTM(6, return_sequences=True))]
    return keras.Sequential([*parts, layers.GRU(5), layers.Dense(1)])


def residual(keras):
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = layers.SeparableConv2D(8, 3, padding="same")(layers.ZeroPadding2D(1)(x))
    y = layers.Cropping2D(1)(layers.BatchNormalization()(y))
    x = layers.Activation("swish")(layers.Add()([x, y]))
    x = layers.MaxPooling2D()(layers.UpSampling2D()(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def autoencoder(keras):
    layers = keras.layers
    sizes = (32, 8, 32)
    parts = [part for size in sizes for part in (layers.Dense(size), layers.BatchNormalization())]
    return keras.Sequential([keras.Input((64,)), *parts, layers.Dense(64)])


def attention(keras):
    x = keras.Input((7, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x)
    y = keras.layers.LayerNormalization()(keras.layers.Add()([x, y]))
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(y)))


def preprocessing(keras):
    """Whole numbers in; layers that scale, resize and normalize inside."""
    layers = keras.layers
    image = keras.Input((12, 12, 3), dtype="uint8")
    x = layers.Resizing(8, 8)(layers.Rescaling(1 / 127.5, offset=-1)(image))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(image, layers.Dense(3)(x))


@pytest.mark.parametrize(
    "make", [several, recurrent, residual, autoencoder, attention, preprocessing]
)
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_kinds_of_networks_answer_as_keras_in_both_formats(make, ending, keras, child, tmp_path):
    """Several inputs, recurrent, residual and attention layers keep their answers."""
    keras.utils.set_random_seed(1)
    network = make(keras)
    network.save(tmp_path / f"m.{ending}")
    model = child.load(tmp_path / f"m.{ending}")
    feeds = rows_for(model)
    expected = predicted(network, *feeds.values())
    expected = expected if isinstance(expected, list) else [expected]
    original = model.run(Task.GENERIC, feeds)
    for array, got in zip(expected, original.values(), strict=True):
        np.testing.assert_allclose(array, got, rtol=1e-4, atol=1e-5)
    for file_format in ("onnx", "tflite"):
        found = answers(model, Task.GENERIC, file_format, feeds)
        assert list(original) == list(found)
        for name, got in found.items():
            np.testing.assert_allclose(original[name], got, rtol=1e-3, atol=1e-4)


def test_long_recurrent_layers_are_one_operator(keras, child, tmp_path):
    """Hundreds of steps are not written out one by one, and backwards stays backwards."""
    import onnx

    layers = keras.layers
    keras.utils.set_random_seed(1)
    sequence = keras.Input((300, 3))
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True, use_bias=False))(sequence)
    x = layers.GRU(4, go_backwards=True)(x)
    keras.Model(sequence, layers.Dense(2, name="answer")(x)).save(tmp_path / "long.keras")
    model = child.load(tmp_path / "long.keras")
    feeds = rows_for(model)
    graph = onnx.load_model_from_string(export(model, Task.GENERIC, "onnx").data).graph
    kinds = [node.op_type for node in graph.node]
    assert (2, 1) == (kinds.count("LSTM"), kinds.count("GRU"))
    assert len(kinds) < 100
    expected = model.run(Task.GENERIC, feeds)["answer"]
    found = answers(model, Task.GENERIC, "onnx", feeds)["answer"]
    np.testing.assert_allclose(expected, found, rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="every step of recurrent layers: at most"):
        export(model, Task.GENERIC, "tflite")


def test_recurrent_layers_with_other_activations_keep_their_answers(keras, child, tmp_path):
    """What torch's own operator does not compute is written out."""
    layers = keras.layers
    x = keras.Input((6, 3))
    y = layers.LSTM(4, activation="relu", return_sequences=True)(x)
    y = layers.GRU(4, recurrent_activation="hard_sigmoid", return_sequences=True)(y)
    y = layers.GRU(4, reset_after=False)(y)
    keras.Model(x, layers.Dense(2, name="y")(y)).save(tmp_path / "odd.keras")
    model = child.load(tmp_path / "odd.keras")
    feeds = rows_for(model)
    expected = model.run(Task.GENERIC, feeds)["y"]
    found = answers(model, Task.GENERIC, "onnx", feeds)["y"]
    np.testing.assert_allclose(expected, found, rtol=1e-4, atol=1e-5)


def test_open_sizes_come_from_the_data_or_by_hand(keras, child, tmp_path):
    """A model of sequences of any length gets the length of the data; without it, one line."""
    layers = keras.layers
    parts = [keras.Input((None, 3), name="x"), layers.Conv1D(4, 3), layers.GlobalMaxPooling1D()]
    keras.Sequential([*parts, layers.Dense(1)]).save(tmp_path / "m.keras")
    data = (ArrayShape(name="anything", dtype="float32", shape=(70, 20, 3)),)
    assert (-1, 20, 3) == child.load(tmp_path / "m.keras", data=data).facts().inputs[0].shape
    by_hand = child.load(tmp_path / "m.keras", input_shapes=((1, 9, 3),))
    assert (-1, 9, 3) == by_hand.facts().inputs[0].shape
    with pytest.raises(UnfitDataError, match=r"leaves the shape of 'x' open \(N,N,3\)"):
        child.load(tmp_path / "m.keras")
    with pytest.raises(RequestError, match="input shape of 'x' must be N,N,3, got 1,9,4"):
        child.load(tmp_path / "m.keras", input_shapes=((1, 9, 4),))


def change_config(path, change):
    """Rewrite the configuration in a file, as another version or a hostile hand would."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def layer_of(config, kind):
    return next(item for item in config["config"]["layers"] if kind == item["class_name"])


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_vanished_arguments_are_dropped_where_they_changed_nothing(
    ending, trained, child, tmp_path
):
    """Old defaults of any layer are dropped and told; a set argument is refused by its name."""
    network, images, _ = trained
    path = tmp_path / f"m.{ending}"

    def age(config):
        layer_of(config, "DepthwiseConv2D")["config"]["groups"] = 1
        norm = layer_of(config, "BatchNormalization")["config"]
        norm.update(virtual_batch_size=None, fused=True)
        layer_of(config, "Dense")["config"]["never_heard_of"] = None

    network.save(path)
    change_config(path, age)
    model = child.load(path)
    said = " ".join(model.facts().messages)
    for text in ("groups=1", "virtual_batch_size=None", "fused=True", "never_heard_of=None"):
        assert text in said
    got = model.run(Task.CLASSIFICATION, {"image": images})["probabilities"]
    np.testing.assert_allclose(predicted(network, images), got, rtol=1e-5, atol=1e-6)

    change_config(path, lambda c: layer_of(c, "DepthwiseConv2D")["config"].update(groups=2))
    with pytest.raises(UnsupportedModelError, match=r"was made with groups=2, which Depthwise"):
        child.load(path)


def entries_of(part):
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, dict | list):
            yield from entries_of(inner)


@pytest.mark.parametrize("age", ["functional", "first layer", "list", "policy"])
def test_older_spellings_are_read(age, trained, child, tmp_path):
    """Configurations as Keras 2 wrote them in its several versions are the same model."""
    network, images, _ = trained

    def write_old(config):
        for item in entries_of(config):
            for name in ("module", "registered_name", "build_config"):
                item.pop(name, None)
            if isinstance(item.get("dtype"), dict):
                policy = {"class_name": "Policy", "config": {"name": "float32"}}
                item["dtype"] = policy if age == "policy" else "float32"
        layers = config["config"]["layers"]
        if age in ("first layer", "list"):
            layers.pop(0)
            layers[0]["config"]["batch_input_shape"] = [None, 8, 8, 1]
        if age == "list":
            config["config"] = layers

    network.save(tmp_path / "m.h5")
    change_config(tmp_path / "m.h5", write_old)
    model = child.load(tmp_path / "m.h5")
    (name,) = (spec.name for spec in model.facts().inputs)
    got = model.run(Task.CLASSIFICATION, {name: images})["probabilities"]
    np.testing.assert_allclose(predicted(network, images), got, rtol=1e-5, atol=1e-6)


def test_layers_inside_wrappers_of_older_files_are_found(keras, child, tmp_path):
    """Keras 2 named the layers inside Bidirectional and TimeDistributed by their class alone."""
    layers = keras.layers
    x = keras.Input((5, 3))
    y = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    y = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)(y)
    network = keras.Model(x, layers.TimeDistributed(layers.Dense(2), name="y")(y))
    network.save(tmp_path / "m.h5")

    def forget_modules(config):
        for item in entries_of(config):
            for name in ("module", "registered_name", "build_config"):
                item.pop(name, None)
            if isinstance(item.get("dtype"), dict):
                item["dtype"] = "float32"

    change_config(tmp_path / "m.h5", forget_modules)
    model = child.load(tmp_path / "m.h5")
    feeds = rows_for(model)
    got = model.run(Task.GENERIC, feeds)["y"]
    np.testing.assert_allclose(predicted(network, *feeds.values()), got, rtol=1e-5, atol=1e-6)


def bomb(marker):
    code = compile(f"open({str(marker)!r}, 'w').close()", "bomb", "exec")
    return base64.b64encode(marshal.dumps(code)).decode()


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_code_in_a_file_is_not_run(ending, keras, child, tmp_path):
    """A Lambda is refused by its layer's name unless the file is trusted."""
    double = keras.layers.Lambda(lambda x: x * 2, name="double")
    network = keras.Sequential([keras.Input((3,)), double, keras.layers.Dense(2)])
    network.save(tmp_path / f"m.{ending}")
    with pytest.raises(UnsafeModelError, match=r"code \(in layer 'double'\), which was not run"):
        child.load(tmp_path / f"m.{ending}")
    model = child.load(tmp_path / f"m.{ending}", trust_pickle=True)
    feeds = rows_for(model)
    expected = predicted(network, *feeds.values())
    got = next(iter(model.run(Task.GENERIC, feeds).values()))
    np.testing.assert_allclose(expected, got, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("place", ["function", "initializer", "activation"])
def test_code_in_any_place_of_a_file_is_not_run(place, ending, trained, child, tmp_path):
    """Marshalled code where Keras would look for an initializer or activation is refused."""
    marker = tmp_path / "ran"
    code = {"class_name": "__lambda__", "config": {"value": [bomb(marker), None, None]}}

    def arm(config):
        layer = layer_of(config, "Dense")
        if place == "function":
            layer["class_name"] = "Lambda"
            layer["config"] = {"name": "x", "function": [bomb(marker), None, None]}
        else:
            layer["config"]["activation" if place == "activation" else "bias_initializer"] = code

    trained[0].save(tmp_path / f"m.{ending}")
    change_config(tmp_path / f"m.{ending}", arm)
    with pytest.raises(UnsafeModelError, match="holds Python code"):
        child.load(tmp_path / f"m.{ending}")
    assert not marker.exists()


def name_a_stranger(config):
    layer_of(config, "Dense")["class_name"] = "Quaternion"


def name_a_module(config):
    layer_of(config, "Dense").update(
        class_name="system", module="os", registered_name="os>system", config={"name": "x"}
    )


def read_a_graph(config):
    layer_of(config, "Dense").update(class_name="TFSMLayer", config={"filepath": "x", "name": "x"})


def remember(config):
    layer_of(config, "Dense")["config"]["stateful"] = True


CHANGED = {
    "custom": (name_a_stranger, UnsupportedModelError, "'Quaternion', which Keras"),
    "module": (name_a_module, UnsupportedModelError, "'os.system', which Keras"),
    "graph": (read_a_graph, UnsafeModelError, r"\(TFSMLayer\) runs what another file"),
    "stateful": (remember, UnsupportedModelError, "layer 'digit' is stateful"),
}


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", CHANGED)
def test_what_keras_does_not_have_is_one_line(name, ending, trained, child, tmp_path):
    """Custom classes and layers that run other files are refused by name."""
    change, error, text = CHANGED[name]
    trained[0].save(tmp_path / f"m.{ending}")
    change_config(tmp_path / f"m.{ending}", change)
    with pytest.raises(error, match=text) as caught:
        child.load(tmp_path / f"m.{ending}")
    assert "\n" not in str(caught.value)


def test_weights_alone_are_told_from_a_model(trained, child, tmp_path):
    """Weights-only files of both ages say what to run instead; other HDF5 files are none."""
    trained[0].save_weights(tmp_path / "new.weights.h5")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    for name in ("new.weights.h5", "old.h5"):
        with pytest.raises(ModelFileError, match=r"weights only.*model.load_weights\('"):
            child.load(tmp_path / name)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ModelFileError, match=r"is an HDF5 file, but holds no Keras model"):
        child.load(tmp_path / "data.h5")


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_damaged_files_are_one_line(part, ending, trained, child, tmp_path):
    """A truncated file of either kind says so."""
    trained[0].save(tmp_path / f"whole.{ending}")
    data = (tmp_path / f"whole.{ending}").read_bytes()
    path = tmp_path / f"m.{ending}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelFileError, match="damaged") as caught:
        kind_of(path)
        child.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_weights_in_other_files_are_not_read(trained, child, tmp_path):
    """HDF5 can name any file of the disk as its contents; such a file is refused."""
    trained[0].save(tmp_path / "m.h5")
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file["stolen"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    with pytest.raises(UnsafeModelError, match="'stolen' in another file"):
        child.load(tmp_path / "m.h5")
    trained[0].save(tmp_path / "n.h5")
    with h5py.File(tmp_path / "n.h5", "r+") as file:
        outside = [(str(tmp_path / "secret"), 0, 64)]
        file.create_dataset("taken", (16,), "float32", external=outside)
    with pytest.raises(UnsafeModelError, match="'taken' in another file"):
        child.load(tmp_path / "n.h5")


def test_an_encrypted_file_is_called_so(tmp_path):
    """Its members cannot be read without a password, which nobody is asked for."""
    import zipfile

    from edgepack.converter.errors import ModelFileError
    from edgepack.converter.keras_model.files import read_config

    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), "{}" * 20)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"m\.keras is an encrypted zip file"):
        read_config(path)
