"""What every engine must do. A new engine joins with a case of its own in ENGINES."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper
from runtime_models import (
    FakeBundle,
    binding_of,
    bundle_of,
    compress_bundle,
    graph_bytes,
    linear_bundle,
    tensor,
    text_bundle,
    tflite_bundle_of,
)
from support.tflite_files import (
    Op,
    Tensor,
    linear_file,
    quantized_file,
    tflite_bytes,
    two_outputs_file,
)

from edgepack.bundle.contract import Datatype, EngineRequirements, TensorBinding
from edgepack.runtime import EngineError, InputError, SessionOptions, UnsupportedModelError, load
from edgepack.runtime.engines import engine_named, engine_names

WEIGHTS = np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]], np.float32)


def two_outputs() -> FakeBundle:
    """Gives x * x and x + x, in the other order than the contract."""
    file = graph_bytes(
        [helper.make_node("Add", ["x", "x"], ["sum"]), helper.make_node("Mul", ["x", "x"], ["sq"])],
        [("x", Datatype.FP32, (-1, 2))],
        [("sq", Datatype.FP32, (-1, 2)), ("sum", Datatype.FP32, (-1, 2))],
    )
    return bundle_of(file, [tensor("x", Datatype.FP32, (-1, 2))], OUTPUTS)


def tflite_linear(engine: str) -> FakeBundle:
    """Gives x @ WEIGHTS."""
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 2))
    return tflite_bundle_of(linear_file(WEIGHTS), [x], [y], engine=engine)


def tflite_two_outputs(engine: str) -> FakeBundle:
    """Gives x * x and x + x, in the other order than the contract."""
    x = tensor("x", Datatype.FP32, (-1, 2))
    return tflite_bundle_of(two_outputs_file(), [x], OUTPUTS, engine=engine)


def onnx_free() -> FakeBundle:
    """Gives x + x of any number of rows and columns."""
    file = graph_bytes(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", Datatype.FP32, (-1, -1))],
        [("y", Datatype.FP32, (-1, -1))],
    )
    return bundle_of(file, *FREE)


def tflite_free(engine: str) -> FakeBundle:
    """Gives x + x of any number of rows and columns."""
    file = tflite_bytes(
        [Tensor(name=name, shape=(-1, -1)) for name in "xy"],
        [Op(kind="ADD", inputs=["x", "x"], outputs=["y"], options_class="AddOptions")],
        ["x"],
        ["y"],
    )
    return tflite_bundle_of(file, *FREE, engine=engine)


def onnx_quantized(batch: int | None) -> FakeBundle:
    """Takes int8 and gives it back."""
    rows = -1 if batch is None else batch
    file = graph_bytes(
        [helper.make_node("Identity", ["qx"], ["qy"])],
        [("qx", Datatype.INT8, (rows, 2))],
        [("qy", Datatype.INT8, (rows, 2))],
    )
    return bundle_of(file, *PAIR, precision="int8", **quantized_bindings(batch))


def tflite_quantized(engine: str, batch: int | None) -> FakeBundle:
    """Takes int8 and gives it back."""
    file = quantized_file(-1 if batch is None else batch)
    return tflite_bundle_of(
        file, *PAIR, engine=engine, precision="int8", **quantized_bindings(batch)
    )


def quantized_bindings(batch: int | None) -> dict[str, list[TensorBinding]]:
    """Of x and y: int8, scale 0.5, zero point 3."""
    affine = {"dtype": Datatype.INT8, "scale": 0.5, "zero_point": 3, "batch": batch}
    (x,), (y,) = PAIR
    return {
        "input_bindings": [binding_of(x, tensor="qx", **affine)],
        "output_bindings": [binding_of(y, tensor="qy", **affine)],
    }


def tflite_fixed(engine: str, batch: int) -> FakeBundle:
    """Gives x @ WEIGHTS, so many rows at a time."""
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 2))
    return tflite_bundle_of(
        linear_file(WEIGHTS, batch=batch),
        [x],
        [y],
        engine=engine,
        input_bindings=[binding_of(x, batch=batch)],
        output_bindings=[binding_of(y, batch=batch)],
    )


def tflite_text(engine: str) -> FakeBundle:
    """Takes text, which no interpreter is given."""
    word = tensor("x", Datatype.BYTES, (-1, 1))
    same = tensor("y", Datatype.BYTES, (-1, 1))
    file = tflite_bytes(
        [
            Tensor(name="x", shape=(1, 1), dtype="str"),
            Tensor(name="shape", shape=(2,), dtype="int32", value=np.array([1, 1], np.int32)),
            Tensor(name="y", shape=(1, 1), dtype="str"),
        ],
        [Op(kind="RESHAPE", inputs=["x", "shape"], outputs=["y"])],
        ["x"],
        ["y"],
    )
    return tflite_bundle_of(file, [word], [same], engine=engine)


FREE = [tensor("x", Datatype.FP32, (-1, -1))], [tensor("y", Datatype.FP32, (-1, -1))]
PAIR = [tensor("x", Datatype.FP32, (-1, 2))], [tensor("y", Datatype.FP32, (-1, 2))]
OUTPUTS = [tensor("sum", Datatype.FP32, (-1, 2)), tensor("sq", Datatype.FP32, (-1, 2))]
# How each engine's files of the same models are made, and operators that it has.
ENGINES = {
    "onnxruntime": {
        "linear": lambda: linear_bundle(WEIGHTS),
        "two": two_outputs,
        "free": onnx_free,
        "fixed": lambda batch: linear_bundle(WEIGHTS, batch=batch),
        "quantized": onnx_quantized,
        "text": text_bundle,
        "takes_text": True,
        "operators": {"": 17},
    },
    **{
        name: {
            "linear": functools.partial(tflite_linear, name),
            "two": functools.partial(tflite_two_outputs, name),
            "free": functools.partial(tflite_free, name),
            "fixed": functools.partial(tflite_fixed, name),
            "quantized": functools.partial(tflite_quantized, name),
            "text": functools.partial(tflite_text, name),
            "takes_text": False,
            "operators": {"FULLY_CONNECTED": 1},
        }
        for name in ("litert", "tflite-runtime")
    },
}


@pytest.fixture(params=sorted(ENGINES))
def name(request) -> str:
    return request.param


def open_(name: str, bundle: FakeBundle, options: SessionOptions | None = None, **changes):
    variant = dataclasses.replace(bundle.contract.variants[0], **changes)
    return engine_named(name).open(bundle.files, variant, options or SessionOptions())


def test_every_engine_is_in_this_suite():
    """An engine that is not tested here does not exist."""
    assert tuple(sorted(ENGINES)) == engine_names()


def test_it_names_itself_and_its_version(name):
    """Name and version are what reports say of the device."""
    engine = engine_named(name)

    assert name == engine.name
    assert all(version[0].isdigit() for version in engine.versions().values())
    assert name in engine.versions()


def test_it_runs_any_number_of_rows(name):
    """Outputs are right, new, and of the file's dtype."""
    session = open_(name, ENGINES[name]["linear"]())
    for rows in (1, 5, 2):
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        (first,) = session.run([x])
        (second,) = session.run([x])

        np.testing.assert_allclose(x @ WEIGHTS, first, rtol=1e-6)
        assert np.float32 == first.dtype
        assert not np.shares_memory(first, second)


def test_outputs_come_in_the_order_of_the_variant(name):
    """Not in the order of the file."""
    session = open_(name, ENGINES[name]["two"]())
    total, square = session.run([np.array([[3, 4]], np.float32)])

    assert [[6, 8]] == total.tolist()
    assert [[9, 16]] == square.tolist()


def test_a_binding_answers_what_a_run_answers(name):
    """Write, run, read, again and again, each time the new input's answer."""
    session = open_(name, ENGINES[name]["linear"]())
    x = np.ones((2, 3), np.float32)
    binding = session.bind([x], session.run([x]))
    if binding is None:
        return  # an engine may have none
    for value in range(5):
        binding.inputs[0][...] = value
        binding.run()
        np.testing.assert_array_equal(session.run([x * value])[0], binding.outputs[0])


def test_bindings_of_one_session_do_not_touch_each_other(name):
    """Each has its own buffers, so that threads can use one each."""
    session = open_(name, ENGINES[name]["linear"]())
    x = np.ones((1, 3), np.float32)
    bindings = [session.bind([x], session.run([x])) for _ in range(4)]
    if None in bindings:
        return

    def use(index: int) -> bool:
        binding = bindings[index]
        right = True
        for value in range(500):
            binding.inputs[0][...] = index * 1000 + value
            binding.run()
            right &= binding.outputs[0][0, 0] == 1.5 * (index * 1000 + value)
        return right

    with ThreadPoolExecutor(4) as pool:
        assert [True] * 4 == list(pool.map(use, range(4)))


def test_several_threads_may_run_one_session(name):
    """Each gets its own answer."""
    session = open_(name, ENGINES[name]["linear"]())

    def use(index: int) -> bool:
        return all(
            session.run([np.full((1, 3), value, np.float32)])[0][0, 0] == 1.5 * value
            for value in range(index * 500, index * 500 + 500)
        )

    with ThreadPoolExecutor(4) as pool:
        assert [True] * 4 == list(pool.map(use, range(4)))


@pytest.mark.parametrize(
    "options",
    [
        SessionOptions(),
        SessionOptions(threads=2, spinning=True, arena=False),
        SessionOptions(threads=2),
    ],
)
def test_options_do_not_change_answers(name, options):
    """Threads, spinning and arena are about speed and memory only."""
    session = open_(name, ENGINES[name]["linear"](), options)
    x = np.ones((2, 3), np.float32)

    np.testing.assert_array_equal(x @ WEIGHTS, session.run([x])[0])


CALLS = 4  # the first take the plain path, the later ones may take the quick one


def test_tensors_have_the_names_of_the_contract(name):
    """Callers never see what the file calls them, nor in which order."""
    with load(ENGINES[name]["two"]()) as model:
        for _ in range(CALLS):
            answer = model.predict({"x": [[3, 4]]})

            assert {"sum": [[6, 8]], "sq": [[9, 16]]} == {k: v.tolist() for k, v in answer.items()}
        with pytest.raises(InputError, match="x"):
            model.predict({"input_1": [[3, 4]]})


@pytest.mark.parametrize("rows", [(1, 2), (3, 5), (1, 7), (2, 1)])
def test_free_dimensions_are_free(name, rows):
    """Not the batch only: the interpreter is given each shape anew, and answers in it."""
    with load(ENGINES[name]["free"]()) as model:
        for shape in (rows, (2, 3), rows, (4, 4), rows):
            x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            np.testing.assert_array_equal(x + x, model.predict({"x": x})["y"])


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_the_runtimes_affair(name, batch):
    """Any number of rows is answered, the last few in a batch that is filled up."""
    with load(ENGINES[name]["fixed"](batch)) as model:
        for rows in (1, 7, 4, 0, 1, 4, 4):
            x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
            np.testing.assert_allclose(x @ WEIGHTS, model.predict({"x": x})["y"], rtol=1e-6)


@pytest.mark.parametrize("batch", [None, 1])
def test_quantized_tensors_are_real_numbers_to_the_caller(name, batch):
    """Scale and zero point are applied, and what does not fit is cut to the ends."""
    with load(ENGINES[name]["quantized"](batch)) as model:
        for _ in range(CALLS):
            answer = model.predict({"x": [[0.0, 1.0], [-0.3, 999.0], [-999.0, 62.0]]})["y"]

            assert [[0.0, 1.0], [-0.5, 62.0], [-65.5, 62.0]] == answer.tolist()
            assert np.float32 == answer.dtype


def test_text_is_answered_or_refused_when_the_model_is_loaded(name):
    """An engine that has no text says so in one line, before the first prediction."""
    if not ENGINES[name]["takes_text"]:
        with pytest.raises(UnsupportedModelError, match="must be of numbers, got text"):
            load(ENGINES[name]["text"]())
        return
    with load(ENGINES[name]["text"]()) as model:
        for word in ("näïve", "", "two words"):
            answer = model.predict({"word": [[word]], "number": [[2.0]]})

            assert ([word], [4.0]) == (answer["same"].tolist(), answer["twice"].tolist())


@pytest.mark.parametrize("options", [SessionOptions(), SessionOptions(threads=2)])
def test_several_threads_may_ask_one_model(name, options):
    """Each gets its own answer, in shapes that differ from the others'."""
    with load(ENGINES[name]["linear"](), options=options) as model:

        def use(index: int) -> bool:
            x = np.full((1 + index % 3, 3), index, np.float32)
            return all(
                np.array_equal(x @ WEIGHTS, model.predict({"x": x})["y"]) for _ in range(200)
            )

        with ThreadPoolExecutor(4) as pool:
            assert [True] * 8 == list(pool.map(use, range(8)))


def test_a_file_that_is_mapped_answers_as_one_that_was_read(name, tmp_path):
    """From its place on disk, also when it is deleted meanwhile."""
    bundle = ENGINES[name]["linear"]()
    (variant,) = bundle.contract.variants
    place = tmp_path / "model"
    place.write_bytes(bundle.files[variant.files[0]])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = open_(name, bundle).run([x])[0]
    mapped = engine_named(name).open_on_disk(place, variant, SessionOptions())
    place.unlink()

    with ThreadPoolExecutor(4) as pool:  # several at once need more than what was opened first
        for answer in pool.map(lambda _: mapped.run([x])[0], range(200)):
            np.testing.assert_array_equal(read, answer)
    with pytest.raises(EngineError):
        engine_named(name).open_on_disk(tmp_path / "nowhere", variant, SessionOptions())


def test_damaged_files_are_one_line_errors(name):
    """A file that cannot be loaded is EngineError with a short text."""
    bundle = ENGINES[name]["linear"]()
    path = bundle.contract.variants[0].files[0]
    for damaged in (b"", b"nonsense" * 1000, bundle.files[path][:40]):
        with pytest.raises(EngineError, match=path) as caught:
            open_(name, FakeBundle(bundle.contract, {path: damaged}))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_a_failing_run_is_a_one_line_error(name, capfd):
    """Wrong shapes are EngineError, and the engine writes nothing past our log."""
    session = open_(name, ENGINES[name]["linear"]())
    with pytest.raises(EngineError) as caught:
        session.run([np.ones((1, 4), np.float32)])

    assert "\n" not in str(caught.value)
    assert ("", "") == capfd.readouterr()


def test_tensors_that_the_file_does_not_have_are_refused_at_open(name):
    """A binding to another name or dtype is found before the first prediction."""
    bundle = ENGINES[name]["linear"]()
    variant = bundle.contract.variants[0]
    for side in ("inputs", "outputs"):
        (binding,) = getattr(variant, side)
        with pytest.raises(UnsupportedModelError, match="got 'nowhere'"):
            open_(name, bundle, **{side: (dataclasses.replace(binding, tensor="nowhere"),)})
        with pytest.raises(UnsupportedModelError, match="must be FP64"):
            open_(name, bundle, **{side: (dataclasses.replace(binding, dtype=Datatype.FP64),)})
    with pytest.raises(UnsupportedModelError, match="nothing is bound to input 'x'"):
        open_(name, bundle, inputs=())


def test_it_refuses_what_it_does_not_have(name):
    """Another engine's variant, and operators of an unknown domain, by their names."""
    variant = ENGINES[name]["linear"]().contract.variants[0]
    engine = engine_named(name)
    engine.check(variant)
    with pytest.raises(UnsupportedModelError, match="got 'other-engine'"):
        engine.check(dataclasses.replace(variant, engine=EngineRequirements(engine="other-engine")))
    has = ENGINES[name]["operators"]
    needs = EngineRequirements(engine=name, opsets={**has, "com.example.odd": 1})
    with pytest.raises(UnsupportedModelError, match=r"needs operators of com\.example\.odd"):
        engine.check(dataclasses.replace(variant, engine=needs))


def test_a_closed_session_does_not_run(name):
    """It raises EngineError instead of whatever the engine does with freed memory."""
    session = open_(name, ENGINES[name]["linear"]())
    session.close()

    with pytest.raises(EngineError, match="closed"):
        session.run([np.ones((1, 3), np.float32)])


def test_an_unknown_engine_is_named_with_those_that_exist():
    """The error lists what there is."""
    with pytest.raises(
        UnsupportedModelError, match=r"one of litert, onnxruntime, tflite-runtime, got 'tensorrt'"
    ):
        engine_named("tensorrt")
    with pytest.raises(UnsupportedModelError, match="got 'find'"):
        engine_named("find")


def test_onnxruntime_refuses_buffers_of_another_shape():
    """What the fast path relies on: a changed output shape is an error, never cut or filled."""
    session = open_("onnxruntime", compress_bundle())
    x = np.ones((2, 1), np.float32)
    binding = session.bind([x], session.run([x]))
    assert binding is not None
    binding.inputs[0][...] = [[1], [-1]]

    with pytest.raises(binding.failures):
        binding.run()
