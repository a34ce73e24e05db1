"""Inputs are looked at for drift several requests at a time, and none is forgotten."""

import asyncio

import numpy as np
import pytest

from edgepack.agent.serve.drift_watch import DriftWatch


class Model:
    """Remembers what its detector sees; completes a window with each look."""

    def __init__(self, watches=True):
        self.watches_drift = watches
        self.contract = type("Contract", (), {"name": "m"})
        self.looks = []

    def observe(self, inputs):
        self.looks.append({name: array.tolist() for name, array in inputs.items()})
        return "result"


def row(value, width=1):
    return {"x": np.full((1, width), value, np.float32)}


def watched(model, requests, *, wait_s=0.0):
    told = []

    async def main():
        watch = DriftWatch(lambda *about: told.append(about))
        for inputs in requests:
            watch.add(model, inputs)
        if wait_s:
            await asyncio.wait_for(until(lambda: sum(map(rows, model.looks)) >= len(requests)), 30)

    async def until(condition):
        while not condition():
            await asyncio.sleep(0.01)

    def rows(look):
        return len(look["x"])

    asyncio.run(main())
    return told


def test_sixteen_requests_are_one_look():
    """In their order, and the window is told once."""
    model = Model()
    told = watched(model, [row(i) for i in range(16)])
    assert [{"x": [[float(i)] for i in range(16)]}] == model.looks
    assert [("m", "result")] == told


def test_what_waits_is_looked_at_soon():
    """A device that is asked rarely hears of drift all the same."""
    model = Model()
    watched(model, [row(1), row(2)], wait_s=30)
    assert [{"x": [[1.0], [2.0]]}] == model.looks


def test_requests_of_several_forms_are_looked_at_one_by_one():
    """A contract may leave sizes free."""
    model = Model()
    watched(model, [row(1), row(2, width=3)], wait_s=30)
    assert [{"x": [[1.0]]}, {"x": [[2.0] * 3]}] == model.looks


def test_large_inputs_do_not_wait():
    """Sixteen images would take memory that a device may not have."""
    model = Model()
    watched(model, [row(1, width=10_000)])
    assert 1 == len(model.looks)


@pytest.mark.parametrize("count", [1, 40])
def test_without_a_reference_nothing_is_kept(count):
    """Most models come with one, but none has to."""
    model = Model(watches=False)
    assert [] == watched(model, [row(i) for i in range(count)])
    assert [] == model.looks
