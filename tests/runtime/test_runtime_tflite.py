"""TFLite files in the runtime: batches, quantized tensors, threads, noise, real models."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from runtime_models import binding_of, tensor, tflite_bundle_of
from support.tflite_files import Op, Tensor, linear_file, quantized_file, tflite_bytes

from edgepack.bundle.contract import Datatype, EngineRequirements, Task
from edgepack.runtime import (
    EngineError,
    EngineMissingError,
    SessionOptions,
    UnsupportedModelError,
    load,
)
from edgepack.runtime.engines import engine_named
from edgepack.runtime.stderr_filter import without_line

WEIGHTS = np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]], np.float32)
CALLS = 4  # the third and later calls of a shape take the quick path
ENGINES = ("litert", "tflite-runtime")


def linear_bundle(engine: str, batch: int | None):
    """Gives x @ WEIGHTS, from a file whose batch is fixed or free."""
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 2))
    return tflite_bundle_of(
        linear_file(WEIGHTS, batch=batch),
        [x],
        [y],
        engine=engine,
        input_bindings=[binding_of(x, batch=batch)],
        output_bindings=[binding_of(y, batch=batch)],
    )


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_number_of_rows_is_answered(engine, batch):
    """Free or fixed, the file's batch is the runtime's affair."""
    with load(linear_bundle(engine, batch)) as model:
        for rows in (1, 7, 4, 0, 1, 100):
            for call in range(CALLS):
                x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + call
                np.testing.assert_allclose(x @ WEIGHTS, model.predict({"x": x})["y"], rtol=1e-6)


def test_rows_that_fit_a_fixed_batch_take_the_quick_path(monkeypatch):
    """One row at a time is what a device does with a file of batch 1."""
    with load(linear_bundle("litert", 1)) as model:
        plain = []
        run = model._adapter.run
        monkeypatch.setattr(model._adapter, "run", lambda arrays: plain.append(1) or run(arrays))
        for _ in range(5):
            model.predict({"x": np.ones((1, 3), np.float32)})
            model.predict({"x": np.ones((2, 3), np.float32)})

        assert 2 + 5 == len(plain)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("engine", ENGINES)
def test_quantized_tensors_are_real_numbers_to_the_caller(engine, batch):
    """Scale and zero point stand in the bindings; what does not fit is cut to the ends."""
    x, y = tensor("x", Datatype.FP32, (-1, 2)), tensor("y", Datatype.FP32, (-1, 2))
    quantized = {"dtype": Datatype.INT8, "scale": 0.5, "zero_point": 3, "batch": batch}
    bundle = tflite_bundle_of(
        quantized_file(batch or -1),
        [x],
        [y],
        engine=engine,
        input_bindings=[binding_of(x, tensor="qx", **quantized)],
        output_bindings=[binding_of(y, tensor="qy", **quantized)],
    )
    with load(bundle) as model:
        for _ in range(CALLS):
            answer = model.predict({"x": [[0.0, 1.0], [-0.3, 999.0], [-999.0, 62.0]]})

            assert [[0.0, 1.0], [-0.5, 62.0], [-65.5, 62.0]] == answer["y"].tolist()


def test_a_text_label_is_derived_of_a_file_that_has_none():
    """TFLite classifiers give scores; the class names are the contract's."""
    x, label = tensor("x", Datatype.FP32, (-1, 3)), tensor("label", Datatype.BYTES, (-1,))
    bundle = tflite_bundle_of(
        linear_file(WEIGHTS),
        [x],
        [label],
        task=Task.CLASSIFICATION,
        output_bindings=[binding_of(label, tensor="y", dtype=Datatype.FP32, derive="argmax")],
        class_names=("stop", "go"),
        requires=("derived-label",),
    )
    with load(bundle) as model:
        for _ in range(CALLS):
            answer = model.predict({"x": [[1, 0, 0], [0, 0, 1]]})

            assert ["stop", "go"] == answer["label"].tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_more_threads_than_interpreters_get_their_own_answers(engine):
    """Callers wait for an interpreter, and shapes that change in between do no harm."""
    with load(linear_bundle(engine, None)) as model:

        def use(index: int) -> bool:
            right = True
            for value in range(200):
                rows = 1 + (index + value) % 3
                x = np.full((rows, 3), index * 1000 + value, np.float32)
                right &= np.array_equal(x @ WEIGHTS, model.predict({"x": x})["y"])
            return right

        with ThreadPoolExecutor(16) as pool:
            assert [True] * 16 == list(pool.map(use, range(16)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failed_run_leaves_the_session_usable(engine):
    """A refused shape, or a failure of the engine, costs that call only."""
    bundle = linear_bundle(engine, None)
    session = engine_named(engine).open(bundle.files, bundle.contract.variants[0], SessionOptions())
    for wrong in (np.ones((1, 4), np.float32), np.ones((1, 3), np.float64), np.ones(3, "f4")):
        for _ in range(20):
            with pytest.raises(EngineError):
                session.run([wrong])
    assert [[1.5, 1.0]] == session.run([np.ones((1, 3), np.float32)])[0].tolist()


def hidden(*packages: str):
    """find_spec as it is where these packages are not installed."""
    find_spec = importlib.util.find_spec
    return lambda name, *rest: None if name in packages else find_spec(name, *rest)


def test_tflite_runtime_answers_for_litert_where_only_it_is(monkeypatch):
    """Old devices have nothing newer; the report names what is really there."""
    engine = engine_named("litert")
    bundle = linear_bundle("litert", None)
    assert ["litert"] == list(engine.versions())

    monkeypatch.setattr(importlib.util, "find_spec", hidden("ai_edge_litert"))

    assert ["tflite-runtime"] == list(engine.versions())
    engine.check(bundle.contract.variants[0])
    with load(bundle) as model:
        assert "tflite_runtime" in type(model._session._idle[0]._interpreter).__module__
        assert [[1.5, 1.0]] == model.predict({"x": [[1, 1, 1]]})["y"].tolist()


def test_where_neither_is_installed_one_line_says_what_to_do(monkeypatch):
    """The extra that brings an interpreter is named."""
    monkeypatch.setattr(importlib.util, "find_spec", hidden("ai_edge_litert", "tflite_runtime"))
    for name in ENGINES:
        with pytest.raises(EngineMissingError, match=rf"{name} is not .*edgepack\[agent-tflite\]"):
            engine_named(name).versions()
        with pytest.raises(EngineMissingError):
            load(linear_bundle(name, None))


@pytest.mark.parametrize("engine", ENGINES)
def test_operators_that_the_interpreter_lacks_are_named(engine):
    """At the latest when the file is opened; before, if the contract lists them."""
    file = tflite_bytes(
        [Tensor(name="x", shape=(1, 3)), Tensor(name="y", shape=(1, 3))],
        [Op(kind="", custom="Erfinv", inputs=["x"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 3))
    bundle = tflite_bundle_of(file, [x], [y], engine=engine)
    with pytest.raises(UnsupportedModelError, match="Erfinv") as caught:
        load(bundle)
    assert "\n" not in str(caught.value)

    variant = dataclasses.replace(
        bundle.contract.variants[0],
        engine=EngineRequirements(engine=engine, opsets={"FlexErfinv": 1, "ADD": 1}),
    )
    with pytest.raises(UnsupportedModelError, match="needs operators of FlexErfinv, which"):
        engine_named(engine).check(variant)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_version_of_an_operator_that_the_interpreter_lacks_is_named(engine):
    """No interpreter tells beforehand which versions it has; opening the file does."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(linear_file(WEIGHTS), 0))
    model.operatorCodes[0].version = 99
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 2))
    bundle = tflite_bundle_of(bytes(builder.Output()), [x], [y], engine=engine)
    with pytest.raises(EngineError, match="FULLY_CONNECTED' version '99'"):
        load(bundle)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_large_files_are_mapped(engine):
    """A small one is read and hashed at each load, which costs nothing."""
    (variant,) = linear_bundle(engine, None).contract.variants
    for size_bytes, expected in ((1000, False), (1 << 20, True)):
        assert expected == engine_named(engine).maps(
            dataclasses.replace(variant, size_bytes=size_bytes)
        )


def test_nothing_is_imported_before_a_model_is_opened():
    """A device that only looks which engines there are does not pay for them."""
    code = (
        "import sys; from edgepack.runtime.engines import engine_named\n"
        "engine_named('litert').versions(); engine_named('tflite-runtime').versions()\n"
        "print([m for m in ('ai_edge_litert', 'tflite_runtime', 'numpy.linalg') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "ai_edge_litert" not in done.stdout
    assert "tflite_runtime" not in done.stdout


def test_opening_a_model_writes_nothing(shared_data):
    """LiteRT announces its delegate on the error stream, past any log handler."""
    path = shared_data / "mlperf_tiny" / "kws_float32.tflite"
    code = (
        "import sys\n"
        "from edgepack.bundle.contract import *\n"
        "from edgepack.runtime import SessionOptions\n"
        "from edgepack.runtime.engines import engine_named\n"
        "x = TensorBinding(name='x', tensor='input_1', dtype=Datatype.FP32)\n"
        "y = TensorBinding(name='y', tensor='Identity', dtype=Datatype.FP32)\n"
        "v = Variant(name='v', files=('f',), precision='fp32', size_bytes=1, inputs=(x,),\n"
        "    engine=EngineRequirements(engine='litert'), outputs=(y,),\n"
        "    parity=Parity(rows=1, metric='m', value=1, bound=1))\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "for _ in range(2): engine_named('litert').open({'f': data}, v, SessionOptions())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )

    assert "" == done.stderr


def test_only_the_one_line_is_held_back(capfd):
    """Whatever else goes to the error stream meanwhile gets there."""
    for _ in range(2):
        with without_line(b"a boast of its own"):
            os.write(2, b"before\nINFO: a boast of its own for CPU.\nafter\n")

    assert "before\nafter\nbefore\nINFO: a boast of its own for CPU.\nafter\n" == (
        capfd.readouterr().err
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "accuracy"), [("kws_float32", 0.900), ("kws_int8", 0.902)])
def test_real_files_score_what_their_authors_say(shared_data, engine, name, accuracy):
    """MLPerf Tiny's keyword spotting, given real numbers: 90.0 % and 90.2 %."""
    # tflite-runtime has other kernels for the 8-bit weights of both: 90.5 % and 90.1 %.
    within = 0.0051 if engine == "tflite-runtime" else 0.0001
    folder = shared_data / "mlperf_tiny"
    data = np.load(folder / "kws01.npz")
    samples = (data["mfcc_int8"].astype(np.float32) - data["zero_point"]) * data["scale"]
    x = tensor("x", Datatype.FP32, (-1, 49, 10, 1))
    label = tensor("label", Datatype.INT64, (-1,))
    scale = {}
    output = {"dtype": Datatype.FP32}
    if name == "kws_int8":
        scale = {"dtype": Datatype.INT8, "scale": 0.5847029089927673, "zero_point": 83}
        output = {"dtype": Datatype.INT8}
    bundle = tflite_bundle_of(
        (folder / f"{name}.tflite").read_bytes(),
        [x],
        [label],
        engine=engine,
        task=Task.CLASSIFICATION,
        input_bindings=[binding_of(x, tensor="input_1", **scale)],
        output_bindings=[binding_of(label, tensor="Identity", derive="argmax", **output)],
        requires=("derived-label",),
    )
    with load(bundle) as model:
        found = model.predict({"x": samples.astype(np.float32)})["label"]

    assert accuracy == pytest.approx(float((found == data["label"]).mean()), abs=within)
