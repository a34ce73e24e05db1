"""Bound buffers: used where they pay, never shared, bounded, given up where they do not work."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper
from runtime_models import (
    bundle_of,
    compress_bundle,
    graph_bytes,
    linear_bundle,
    sum_bundle,
    tensor,
    text_bundle,
)

from edgepack.bundle.contract import Datatype
from edgepack.runtime import EngineError, InputError, Model, load, quick
from edgepack.runtime.engine import Binding

THREADS = 8
CALLS = 3000


def count_plain_calls(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a list that grows by one for every call of the plain path."""
    calls: list[int] = []
    run = model._adapter.run
    monkeypatch.setattr(model._adapter, "run", lambda arrays: calls.append(1) or run(arrays))
    return calls


def test_a_shape_that_comes_again_is_bound_and_one_that_does_not_is_not(monkeypatch):
    """The first two calls of a shape are plain; from the third on buffers answer."""
    with load(linear_bundle(np.eye(3))) as model:
        plain = count_plain_calls(model, monkeypatch)
        for _ in range(10):
            model.predict({"x": np.ones((1, 3), np.float32)})
        assert 2 == len(plain)

        model.predict({"x": np.ones((2, 3), np.float32)})
        assert 3 == len(plain)


@pytest.mark.parametrize("columns", [1, 3])
def test_threads_never_see_one_anothers_answers(columns):
    """Eight threads with thousands of calls each get exactly their own answers."""
    with load(sum_bundle(columns)) as model:
        start = threading.Barrier(THREADS)

        def caller(thread: int) -> int:
            start.wait()
            wrong = 0
            for call in range(CALLS):
                value = float(thread * CALLS + call)
                rows = 1 + call % 2
                x = np.full((rows, 1), value, np.float32)
                answer = model.predict({f"c{i}": x for i in range(columns)})["value"]
                wrong += answer.tolist() != [value * columns] * rows
            return wrong

        with ThreadPoolExecutor(THREADS) as pool:
            wrong = list(pool.map(caller, range(THREADS)))

        assert [0] * THREADS == wrong
        assert THREADS * CALLS == model.latency.count


def test_a_call_in_the_middle_of_a_call_gets_other_buffers():
    """A signal handler that predicts while a prediction runs changes nothing."""
    with load(linear_bundle(np.eye(3))) as model:
        x = np.ones((1, 3), np.float32)
        for _ in range(4):
            model.predict({"x": x})
        inner = []
        (call,) = model._quick._pools[x.shape]

        def interrupted(array):
            inner.append(model.predict({"x": array * 7})["y"].tolist())
            return call(array)

        model._quick._pools[x.shape][:] = [interrupted]

        assert [[1, 1, 1]] == model.predict({"x": x})["y"].tolist()
        assert [[[7, 7, 7]]] == inner


def test_the_number_of_bindings_is_bounded():
    """However many shapes and threads come, the buffers do not grow without end."""
    with load(linear_bundle(np.eye(3))) as model:
        for rows in range(1, 60):
            for _ in range(3):
                x = np.full((rows, 3), rows, np.float32)
                np.testing.assert_array_equal(x, model.predict({"x": x})["y"])

        assert quick.MAX_SHAPES == len(model._quick._pools)

    with load(linear_bundle(np.eye(3))) as model:
        hold = threading.Barrier(quick.MAX_CALLS_PER_SHAPE + 8)
        run = model._adapter.run
        model._adapter.run = lambda arrays: (run(arrays), hold.wait())[0]
        model._quick._seen.add((1, 3))
        with ThreadPoolExecutor(hold.parties) as pool:
            list(
                pool.map(
                    lambda _: model.predict({"x": np.ones((1, 3), np.float32)}),
                    range(hold.parties),
                )
            )

        assert quick.MAX_CALLS_PER_SHAPE == len(model._quick._pools[1, 3])


def test_all_buffers_of_a_model_have_a_budget(monkeypatch):
    """When it is used up, further shapes are answered without buffers of their own."""
    monkeypatch.setattr(quick, "MAX_BYTES", 5000)
    with load(linear_bundle(np.eye(3))) as model:
        for rows in (60, 70, 80, 90):  # 24 bytes a row, in and out
            x = np.full((rows, 3), rows, np.float32)
            for _ in range(4):
                np.testing.assert_array_equal(x, model.predict({"x": x})["y"])

        assert [(60, 3), (70, 3)] == list(model._quick._pools)
        assert 130 * 24 == model._quick._bytes


def test_large_inputs_are_not_copied_into_buffers(monkeypatch):
    """Beyond 128 KiB the engine runs on the caller's own memory."""
    rows = quick.MAX_BINDING_BYTES // (3 * 4)
    x = np.ones((rows, 3), np.float32)
    with load(linear_bundle(np.eye(3))) as model:
        plain = count_plain_calls(model, monkeypatch)
        seen = []
        run = model._session.run
        monkeypatch.setattr(
            model._session, "run", lambda feeds: seen.append(feeds[0] is x) or run(feeds)
        )
        for _ in range(5):
            np.testing.assert_array_equal(x, model.predict({"x": x})["y"])

        assert [True] * 5 == seen
        assert 2 == len(plain)
        assert 0 == model._quick._bytes
        x[7, 1] = np.nan
        with pytest.raises(InputError, match="got nan at row 7, feature 'f1'"):
            model.predict({"x": x})


def test_outputs_whose_shape_depends_on_the_data_are_right():
    """A model that drops rows answers rightly before and after its buffers stop fitting."""
    with load(compress_bundle()) as model:
        for values in ([1, 2], [3, 4], [5, 6], [7, -1], [8, 9], [-1, -1], [1, 1]):
            x = np.array(values, np.float32).reshape(2, 1)

            np.testing.assert_array_equal(x[x > 0].reshape(-1, 1), model.predict({"x": x})["y"])


def text_output_bundle():
    """Names the sign of each row's only value."""
    file = graph_bytes(
        [
            helper.make_node("Greater", ["x", "zero"], ["above"]),
            helper.make_node("Cast", ["above"], ["index"], to=7),
            helper.make_node("Gather", ["names", "index"], ["label"]),
        ],
        [("x", Datatype.FP32, (-1, 1))],
        [("label", Datatype.BYTES, (-1, 1))],
        {"zero": np.float32(0), "names": np.array(["minus", "plus"], dtype=object)},
    )
    x, label = tensor("x", Datatype.FP32, (-1, 1)), tensor("label", Datatype.BYTES, (-1,))
    return bundle_of(file, [x], [label])


def test_text_as_output_is_answered_without_the_plain_path(monkeypatch):
    """Classes that are text are new arrays of `str` in the contract's shape, call by call."""
    with load(text_output_bundle()) as model:
        plain = count_plain_calls(model, monkeypatch)
        answers = [
            model.predict({"x": np.array([[value], [-value]], np.float32)})["label"]
            for value in (1, -1, 2, -2, 3)
        ]
        with pytest.raises(InputError, match="got inf"):
            model.predict({"x": np.array([[np.inf], [1]], np.float32)})

    rows = [["plus", "minus"], ["minus", "plus"]]
    assert [*rows, *rows, rows[0]] == [answer.tolist() for answer in answers]
    assert 2 == len(plain)


def test_strided_inputs_run_directly_too():
    """Every second row of a large array is what the model sees, not the array's memory."""
    x = np.arange(10, dtype=np.float32).reshape(5, 2)[:, :1] - 3
    with load(text_output_bundle()) as model:
        for _ in range(4):
            answer = model.predict({"x": x})["label"]

    assert ["minus", "minus", "plus", "plus", "plus"] == answer.tolist()


def test_an_engine_that_fails_directly_says_so(monkeypatch):
    """Its error reaches the caller, and the next call is tried again."""
    x = np.ones((2, 1), np.float32)
    with load(text_output_bundle()) as model:
        for _ in range(3):
            model.predict({"x": x})
        (call,) = model._quick._pools[x.shape]

        def failing(array):
            raise EngineError("out of order")

        model._quick._pools[x.shape][:] = [failing]
        with pytest.raises(EngineError, match="out of order"):
            model.predict({"x": x})
        model._quick._pools[x.shape][:] = [call]
        assert ["plus", "plus"] == model.predict({"x": x})["label"].tolist()


def test_direct_outputs_of_another_shape_take_the_plain_path(monkeypatch):
    """A model that drops rows is right without buffers too."""
    monkeypatch.setattr(quick, "MAX_BINDING_BYTES", 0)
    with load(compress_bundle()) as model:
        for values in ([1, 2], [3, 4], [5, 6], [7, -1], [8, 9], [-1, -1]):
            x = np.array(values, np.float32).reshape(2, 1)

            np.testing.assert_array_equal(x[x > 0].reshape(-1, 1), model.predict({"x": x})["y"])


def test_text_as_input_is_looked_at_in_every_call(monkeypatch):
    """`str` needs no plain path; other forms of text take it, and numbers are refused."""
    number = np.ones((1, 1), np.float32)
    with load(text_bundle()) as model:
        plain = count_plain_calls(model, monkeypatch)
        for word in "abcdef":
            words = np.array([[word]], dtype=object)
            assert [word] == model.predict({"word": words, "number": number})["same"].tolist()
        assert 2 == len(plain)

        for other in (np.str_("g"), b"g"):
            words = np.array([[other]], dtype=object)
            assert ["g"] == model.predict({"word": words, "number": number})["same"].tolist()
        assert 4 == len(plain)
        with pytest.raises(InputError, match="values must be text, got int at position 0"):
            model.predict({"word": np.array([[1]], dtype=object), "number": number})
        words = np.array([["h"]], dtype=object)
        assert ["h"] == model.predict({"word": words, "number": number})["same"].tolist()
        assert 4 == len(plain)


def test_a_model_that_answers_at_random_is_never_bound():
    """Buffers are trusted only after they gave the plain path's bits for the same input."""
    file = graph_bytes(
        [helper.make_node("RandomUniformLike", ["x"], ["y"])],
        [("x", Datatype.FP32, (-1, 4))],
        [("y", Datatype.FP32, (-1, 4))],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 4)), tensor("y", Datatype.FP32, (-1, 4))
    with load(bundle_of(file, [x], [y])) as model:
        for _ in range(5):
            model.predict({"x": np.ones((1, 4), np.float32)})

        assert {(1, 4): []} == model._quick._pools


def test_an_output_that_is_its_input_is_a_copy():
    """A graph that passes its input through still gives new arrays."""
    file = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Datatype.FP32, (-1, 2))],
        [("y", Datatype.FP32, (-1, 2))],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 2)), tensor("y", Datatype.FP32, (-1, 2))
    with load(bundle_of(file, [x], [y])) as model:
        answers = [
            model.predict({"x": np.full((1, 2), value, np.float32)})["y"] for value in range(6)
        ]

    assert [[[v, v]] for v in range(6)] == [answer.tolist() for answer in answers]


class FailingSession:
    """Doubles its input; its bindings fail from the `healthy`-th run on."""

    def __init__(self, healthy: int, *, plain_fails: bool = False) -> None:
        self.healthy = healthy
        self.plain_fails = plain_fails
        self.bound_runs = 0

    def run(self, feeds):
        if self.plain_fails:
            raise EngineError("plain failed")
        return [2 * feeds[0]]

    def bind(self, inputs, outputs):
        source, target = np.zeros_like(inputs[0]), np.zeros_like(outputs[0])

        def run():
            self.bound_runs += 1
            if self.bound_runs > self.healthy:
                raise OSError("bound failed")
            np.multiply(source, 2, out=target)

        return Binding(inputs=(source,), outputs=(target,), run=run, failures=(OSError,))

    def close(self):
        """Nothing to free."""


def model_on(session: FailingSession) -> Model:
    contract = linear_bundle(np.eye(3)).contract
    return Model(contract, contract.variants[0], session, digest="sha256:0")


def test_a_binding_that_fails_is_given_up_for_good():
    """The plain path answers instead, and the shape is not bound again."""
    session = FailingSession(healthy=3)
    model = model_on(session)
    x = np.ones((1, 3), np.float32)

    for _ in range(10):
        assert [[2, 2, 2]] == model.predict({"x": x})["y"].tolist()
    assert 4 == session.bound_runs


def test_when_the_plain_path_fails_too_the_caller_gets_its_error():
    """A failure that is not the binding's fault comes out as EngineError."""
    session = FailingSession(healthy=2)
    model = model_on(session)
    x = np.ones((1, 3), np.float32)
    for _ in range(3):
        model.predict({"x": x})
    session.plain_fails = True

    with pytest.raises(EngineError, match="plain failed"):
        model.predict({"x": x})


def test_a_refused_input_does_not_cost_its_buffers(monkeypatch):
    """After a NaN was refused, the next call is answered from buffers again."""
    with load(linear_bundle(np.eye(3))) as model:
        x = np.ones((1, 3), np.float32)
        for _ in range(3):
            model.predict({"x": x})
        plain = count_plain_calls(model, monkeypatch)
        with pytest.raises(InputError):
            model.predict({"x": x * np.nan})
        model.predict({"x": x})

        assert [] == plain
