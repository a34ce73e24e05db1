"""What every engine must do. A new engine joins with a case of its own in ENGINES."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper
from runtime_models import (
    FakeBundle,
    bundle_of,
    compress_bundle,
    graph_bytes,
    linear_bundle,
    tensor,
    tflite_bundle_of,
)
from support.tflite_files import linear_file, two_outputs_file

from edgepack.bundle.contract import Datatype, EngineRequirements
from edgepack.runtime import EngineError, SessionOptions, UnsupportedModelError
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


OUTPUTS = [tensor("sum", Datatype.FP32, (-1, 2)), tensor("sq", Datatype.FP32, (-1, 2))]
# How each engine's files of the same models are made, and operators that it has.
ENGINES = {
    "onnxruntime": {
        "linear": lambda: linear_bundle(WEIGHTS),
        "two": two_outputs,
        "operators": {"": 17},
    },
    **{
        name: {
            "linear": functools.partial(tflite_linear, name),
            "two": functools.partial(tflite_two_outputs, name),
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
