"""Which inferences the event loop runs itself, and which a thread."""

import asyncio
import threading

import numpy as np
import pytest
from support.one_model import inference_of
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.serve.pace import Pace, is_small

QUICK_S, SLOW_S, LONG_S = 50e-6, 1e-3, 50e-3


def after(*durations_s):
    pace = Pace()
    for duration_s in durations_s:
        pace.took(duration_s)
    return pace.is_quick


def test_a_model_proves_that_it_is_quick():
    """Some quick answers are not enough, many are."""
    assert not after(*[QUICK_S] * 63)
    assert after(*[QUICK_S] * 64)


@pytest.mark.parametrize(
    ("durations_s", "expected"),
    [
        ([QUICK_S] * 1000 + [SLOW_S] * 4, True),
        ([QUICK_S] * 1000 + [SLOW_S] * 5, False),
        ([QUICK_S, SLOW_S] * 1000, False),
        ([QUICK_S] * 1000 + [LONG_S], False),
        ([QUICK_S] * 1000 + [LONG_S] + [QUICK_S] * 255, False),
        ([LONG_S] * 1000 + [SLOW_S] * 1000 + [QUICK_S] * 256, True),
    ],
)
def test_slow_answers_cost_more_than_quick_ones_gain(durations_s, expected):
    """A few are noise; one long one sends it back to the threads for 256."""
    assert expected == after(*durations_s)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"x": np.zeros((1, 64), np.float32)}, True),
        ({"x": np.zeros((2, 64), np.float32)}, False),
        ({"x": np.zeros((1, 5000), np.float32)}, False),
        ({"x": np.zeros((1, 4), np.float32), "y": np.zeros((2, 4), np.float32)}, False),
        ({"x": np.zeros((), np.float32)}, False),
    ],
)
def test_only_one_sample_is_small(inputs, expected):
    """What was learnt from one sample says nothing of a batch or an image."""
    assert expected == is_small(inputs)


def test_a_quick_model_moves_to_the_event_loop_and_back(tmp_path):
    """Batches stay on the threads; so does everything after an answer that took long."""
    inference, registry, _ = inference_of(write_tiny_bundle(tmp_path))
    model, seen = registry.model._model, []
    predict = model.predict

    class Seen:
        def predict(self, inputs):
            seen.append(threading.current_thread() is threading.main_thread())
            return predict(inputs)

    registry.model._model = Seen()

    async def on_the_loop(rows):
        await inference.answer("tiny", lambda _: {"x": np.zeros((rows, 4), np.float32)})
        return seen[-1]

    async def main():
        first = await on_the_loop(1)
        for _ in range(256):  # the first answer took long
            registry.model._pace.took(QUICK_S)
        found = [first, await on_the_loop(1), await on_the_loop(2)]
        registry.model._pace.took(LONG_S)
        return [*found, await on_the_loop(1)]

    assert [False, True, False, False] == asyncio.run(main())
    registry.close()
