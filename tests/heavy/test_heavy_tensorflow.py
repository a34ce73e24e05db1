"""SavedModel folders of several ages and writers, to both formats, against TensorFlow's answers."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.model_child import answers, kind_of, model_child, rows_for

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

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

# Everything is written by a process of its own: TensorFlow is not imported beside torch.
WRITER = '''
import os, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf

os.chdir(sys.argv[1])
keras.utils.set_random_seed(0)
layers = keras.layers
rng = np.random.default_rng(0)


def weights_of(*shape):
    return rng.normal(size=shape).astype("float32")


def weights(*shape):
    return tf.Variable(weights_of(*shape))


def spec(*shape, dtype=tf.float32, name=None):
    return tf.TensorSpec(shape, dtype, name=name)


def save(folder, *specs):
    """Save a function of tensors as a module with one signature."""

    def wrap(function):
        module = tf.Module()
        module.held = getattr(function, "held", None)
        module.function = tf.function(function, input_signature=specs)
        tf.saved_model.save(module, folder, signatures=module.function)
        return function

    return wrap


image = keras.Input((16, 16, 3), name="image")
x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
x = layers.ReLU()(layers.BatchNormalization()(x))
y = layers.DepthwiseConv2D(3, padding="same")(x)
x = layers.Add()([x, layers.BatchNormalization()(y)])
x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
network = keras.Model(image, x)
network.compile("adam", "sparse_categorical_crossentropy")
seen = rng.random((200, 16, 16, 3)).astype("float32")
network.fit(seen, seen.mean((1, 2)).argmax(1), epochs=2, verbose=0)
network.export("keras", verbose=False)
tested = rng.random((40, 16, 16, 3)).astype("float32")
np.savez("keras.npz", image=tested, expected=network.predict(tested, verbose=0))

# Keras's own model, not exported: variables twice, GELU as Erfc.
inside = keras.Sequential([keras.Input((6,)), layers.Dense(16, "gelu")])
inside.add(layers.BatchNormalization())
inside.add(layers.Dense(3))
tf.saved_model.save(inside, "saved")
given = rng.random((40, 6)).astype("float32")
np.savez("saved.npz", x=given, expected=inside.predict(given, verbose=0))

recurrent = keras.Sequential([keras.Input((12, 4)), layers.LSTM(8), layers.Dense(1)])
recurrent.export("recurrent", verbose=False)

w, b = weights(6, 3), weights(3)


class Dense(tf.Module):
    def __init__(self):
        self.w, self.b = w, b

    @tf.function(input_signature=[spec(None, 6)])
    def __call__(self, x):
        return {"scores": x @ self.w + self.b, "doubled": x * 2.0}

    @tf.function(input_signature=[spec(None, 6)])
    def other(self, x):
        return {"scores": x @ self.w}


dense = Dense()
tf.saved_model.save(dense, "module", signatures=dense.__call__)
tf.saved_model.save(dense, "bare", signatures={})
tf.saved_model.save(dense, "named", signatures={"predict": dense.other})
both = {"first": dense.__call__, "second": dense.other}
tf.saved_model.save(dense, "several", signatures=both)
tf.saved_model.save(dense, "default", signatures={"serving_default": dense.other, **both})


@save("loop", spec(None, 10, 4))
def loop(x):
    step = lambda i, total: (i + 1, total + x[:, i])
    return {"sums": tf.while_loop(lambda i, total: i < 10, step, (1, x[:, 0]))[1]}


@save("two", spec(None, 4, name="a"), spec(None, 4, name="b"))
def two(a, b):
    return {"sum": a + b}


@save("open", spec(None, None, 3, name="x"))
def opened(x):
    return {"mean": tf.reduce_mean(x, axis=1)}


@save("fixed", spec(1, 5, name="x"))
def fixed(x):
    return {"y": tf.nn.relu(x)}


@save("text", spec(None, dtype=tf.string))
def text(x):
    return {"y": tf.strings.length(x)}


@save("scalar", spec())
def scalar(x):
    return {"y": x * 2.0}


@save("writes", spec(None, 3))
def writes(x):
    tf.io.write_file(os.path.abspath("written"), "x")
    return {"y": x * 2.0}


@save("reads", spec(None, 3))
def reads(x):
    size = tf.strings.length(tf.io.read_file("/etc/hostname"))
    return {"y": x + tf.cast(size, tf.float32)}


@save("python", spec(None, 3))
def python(x):
    return {"y": tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32), x.shape)}


@save("flex", spec(None, 4, 4))
def flex(x):
    return {"y": tf.linalg.expm(x)}


class Table(tf.Module):
    """Has a table, which is filled when it is loaded."""

    def __init__(self):
        keys = tf.lookup.KeyValueTensorInitializer([1, 2], [10, 20], tf.int64, tf.int64)
        self.table = tf.lookup.StaticHashTable(keys, -1)

    @tf.function(input_signature=[spec(None, 2, dtype=tf.int64)])
    def __call__(self, x):
        return {"y": self.table.lookup(x)}


table = Table()
tf.saved_model.save(table, "table", signatures=table.__call__)

# As the first TensorFlow wrote them: variables in the graph, training beside the answers.
v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, [None, 6], name="x")
    kernel = v1.get_variable("kernel", initializer=weights_of(6, 3), use_resource=False)
    y = tf.nn.softmax(tf.matmul(x, kernel))
    loss = tf.reduce_mean(y)
    train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
    v1.summary.scalar("loss", loss)
    session.run(v1.global_variables_initializer())
    v1.saved_model.simple_save(session, "first", {"x": x}, {"y": y})
    v1.train.Saver().save(session, "checkpoint_only/model")
'''

FOLDERS = [
    "keras",
    "recurrent",
    "saved",
    "module",
    "loop",
    "two",
    "fixed",
    "first",
    "named",
    "default",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of SavedModels."""
    folder = tmp_path_factory.mktemp("saved")
    done = subprocess.run(
        [sys.executable, "-c", WRITER, folder], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    with model_child("saved_model", tmp_path_factory.mktemp("scratch")) as running:
        yield running


def keyword_samples(shared_data):
    with np.load(shared_data / "mlperf_tiny" / "kws01.npz") as packed:
        quantized = packed["mfcc_int8"].astype(np.float32)
        x = (quantized - packed["zero_point"]) * packed["scale"]
        return x.astype(np.float32), packed["label"].astype(np.int64)


def test_keyword_spotting_keeps_its_accuracy_in_both_formats(tmp_path, shared_data, child):
    """A folder that TensorFlow's present loader refuses: fp32 and int8 as the issue wants them."""
    x, labels = keyword_samples(shared_data)
    np.savez(tmp_path / "kws.npz", input_1=x, label=labels)
    folder = shared_data / "mlperf_tiny" / "kws_saved_model"
    expected = child.load(folder).run(Task.CLASSIFICATION, {"input_1": x})["label"]
    assert 0.913 == pytest.approx(float((expected == labels).mean()), abs=5e-4)
    report = convert(
        ConvertRequest(
            model=folder, data=tmp_path / "kws.npz", label="label", name="kws", output=tmp_path
        )
    )
    bundle = open_bundle(report.path)
    sizes = {v.name: v.size_bytes for v in bundle.contract.variants}
    accuracy = {}
    for variant in bundle.contract.variants:
        got = load(bundle, variant=variant.name).predict({"input_1": x})["label"]
        accuracy[variant.name] = float((got == labels).mean())
        if variant.name.endswith("fp32"):
            np.testing.assert_array_equal(expected, got)
    authors = (shared_data / "mlperf_tiny" / "kws_int8.tflite").stat().st_size
    for start in ("onnx-int8", "tflite-int8"):
        small = {
            name: value
            for name, value in accuracy.items()
            if name.startswith(start) and sizes[name] <= 1.2 * authors
        }
        assert max(small.values(), default=0) >= 0.905, (accuracy, sizes)
    assert min(accuracy.values()) >= 0.90, accuracy


def test_the_command_says_nothing_of_tensorflow(written, tmp_path):
    """`edgepack convert` takes a folder; nothing of TensorFlow's logging reaches the terminal."""
    with np.load(written / "keras.npz") as packed:
        images, expected = packed["image"], packed["expected"]
    np.savez(tmp_path / "data.npz", image=np.concatenate([images] * 3))
    command = [sys.executable, "-m", "edgepack.cli.main", "convert", written / "keras"]
    options = ["--data", tmp_path / "data.npz", "-o", tmp_path, "--precision", "fp32", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    for word in ("oneDNN", "tf2onnx", "I0000", "W0000", "WARNING", "tensorflow/", "Traceback"):
        assert word not in done.stdout + done.stderr
    json.loads(done.stdout)
    (path,) = tmp_path.glob("*.edgepack")
    bundle = open_bundle(path)
    assert {"onnx-fp32", "tflite-fp32"} == {v.name for v in bundle.contract.variants}
    for variant in bundle.contract.variants:
        got = load(bundle, variant=variant.name).predict({"image": images})
        np.testing.assert_allclose(expected, got["probabilities"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_writer_is_read_and_answers_as_tensorflow(name, written, child):
    """Keras's export, modules, loops, fixed rows and the first TensorFlow's graphs convert."""
    assert "TensorFlow SavedModel" == kind_of(written / name)
    model = child.load(written / name)
    assert ("TensorFlow", ("onnx", "tflite")) == (model.facts().framework, model.facts().formats)
    feeds = rows_for(model, rows=1 if name == "fixed" else 5)
    expected = model.run(Task.GENERIC, feeds)
    for file_format in ("onnx", "tflite"):
        found = answers(model, Task.GENERIC, file_format, feeds)
        assert sorted(expected) == sorted(found)
        for output, got in found.items():
            np.testing.assert_allclose(expected[output], got, rtol=1e-4, atol=1e-5)


def test_the_answers_are_tensorflows(written, child):
    """What the original answers is what Keras predicted before the export."""
    with np.load(written / "keras.npz") as packed:
        images, expected = packed["image"], packed["expected"]
    got = child.load(written / "keras").run(Task.CLASSIFICATION, {"image": images})
    np.testing.assert_allclose(expected, got["probabilities"], rtol=1e-5, atol=1e-6)


def test_variables_that_the_graph_leaves_empty_are_found(written, child):
    """A model of Keras 3 that tf.saved_model.save wrote answers as Keras did."""
    with np.load(written / "saved.npz") as packed:
        x, expected = packed["x"], packed["expected"]
    model = child.load(written / "saved")
    (given,) = (spec.name for spec in model.facts().inputs)
    (got,) = model.run(Task.GENERIC, {given: x}).values()
    np.testing.assert_allclose(expected, got, rtol=1e-5, atol=1e-6)


def test_open_sizes_come_from_the_data_or_by_hand(written, child):
    """Sizes that the signature leaves open are the data's, or given; without either, one line."""
    data = (ArrayShape(name="any", dtype="float32", shape=(70, 8, 3)),)
    assert (-1, 8, 3) == child.load(written / "open", data=data).facts().inputs[0].shape
    by_hand = child.load(written / "open", input_shapes=((1, 9, 3),))
    assert (-1, 9, 3) == by_hand.facts().inputs[0].shape
    with pytest.raises(UnfitDataError, match="leaves the shape of 'x' open"):
        child.load(written / "open")
    with pytest.raises(RequestError, match="input shape of 'x' must be N,N,3, got 1,9,4"):
        child.load(written / "open", input_shapes=((1, 9, 4),))


REFUSED = {
    "bare": (UnsupportedModelError, "bare has no signature"),
    "several": (UnsupportedModelError, "or one called 'serving_default', got first, second"),
    "text": (UnsupportedModelError, "input 'x' must be numbers, got string"),
    "scalar": (UnsupportedModelError, "input 'x' must have rows, got a single value"),
    "writes": (UnsafeModelError, "uses WriteFile, which reach"),
    "reads": (UnsafeModelError, "uses ReadFile, which reach"),
    "python": (UnsafeModelError, "uses PyFunc, which reach"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_one_line(name, written, child):
    """Signatures that say too little, text, and operators that reach files or Python."""
    error, text = REFUSED[name]
    with pytest.raises(error, match=text) as caught:
        child.load(written / name)
    assert "\n" not in str(caught.value)
    assert not (written / "written").exists()


def test_operators_without_a_form_are_named(written, child):
    """Where TFLite or ONNX has no such operator, the line names it; the other format may go on."""
    with pytest.raises(UnsupportedModelError, match="Matrix"):
        model = child.load(written / "flex")
        answers(model, Task.GENERIC, "tflite", rows_for(model))


def test_a_custom_operator_is_named(written, child, tmp_path):
    """An operator that TensorFlow does not have is refused by its name, before anything runs."""
    shutil.copytree(written / "module", tmp_path / "m")
    file = tmp_path / "m" / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"MatMul", b"MyyMul"))
    with pytest.raises(UnsupportedModelError, match="uses MyyMul, which TensorFlow does not have"):
        child.load(tmp_path / "m")


def test_a_table_of_constants_is_filled(written, child):
    """A model that looks numbers up answers as it did."""
    model = child.load(written / "table")
    feeds = {"x": np.array([[1, 2], [2, 5]])}
    np.testing.assert_array_equal([[10, 20], [20, -1]], model.run(Task.GENERIC, feeds)["y"])


@pytest.mark.parametrize("part", [0.0, 0.4, 0.9])
def test_a_damaged_graph_is_one_line(part, written, child, tmp_path):
    """A truncated saved_model.pb says so."""
    shutil.copytree(written / "module", tmp_path / "m")
    data = (tmp_path / "m" / "saved_model.pb").read_bytes()
    (tmp_path / "m" / "saved_model.pb").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelFileError) as caught:
        child.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["variables.index", "variables.data-00000-of-00001", ""])
def test_lost_variables_are_one_line(part, written, child, tmp_path):
    """A folder without its variables, or with a truncated file of them, is damaged."""
    shutil.copytree(written / "module", tmp_path / "m")
    if part:
        path = tmp_path / "m" / "variables" / part
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(ModelFileError) as caught:
        child.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_first_graph_without_its_variables_is_damaged(written, child, tmp_path):
    """Where no operator of the graph would complain, the folder that is not there is named."""
    shutil.copytree(written / "first", tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(ModelFileError, match="has no folder 'variables' and its graph has 1 var"):
        child.load(tmp_path / "m")


def test_folders_that_are_no_models_say_what_they_are(written, tmp_path):
    """A checkpoint is weights only; a text-form model is told; any other folder is a folder."""
    with pytest.raises(ModelFileError, match="is a TensorFlow checkpoint: weights only"):
        kind_of(written / "checkpoint_only")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "saved_model.pbtxt").write_text("")
    with pytest.raises(ModelFileError, match="in text form"):
        kind_of(tmp_path / "t")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="is a folder"):
        kind_of(tmp_path / "empty")
