"""What a served model counts for its probation."""

import asyncio

import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.install.slot import Installed
from edgepack.agent.serve.served import ServedModel
from edgepack.runtime import EngineError, InputError, load
from edgepack.wire.infer import Truth
from edgepack.wire.messages import Release

X = {"x": np.zeros((1, 4), np.float32)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def served(path, **options):
    release = Release(digest="sha256:" + "a" * 64, version="1", sequence=1)
    installed = Installed(release=release, variant="onnx-fp32")
    return ServedModel(installed, load(path), **options)


def ask(model, count):
    for i in range(count):
        model.answered(f"r{i}", X, model.predict(X))


def test_latency_is_counted_over_all_intervals(path):
    """Publishing metrics takes nothing away from the probation."""
    model = served(path)
    ask(model, 5)
    assert 5 == model.metrics()["latency_count"]
    ask(model, 3)
    latency = model.figures().latency
    assert 8 == latency.count
    assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms


@pytest.mark.parametrize(("trusted", "expected"), [(True, (2, 1)), (False, (0, None))])
def test_truths_count_only_from_a_trusted_source(path, trusted, expected):
    """Whoever may publish truths can change what is reported, and no more."""
    model = served(path, trusted_truths=trusted)
    ask(model, 2)
    label = str(model.predict(X)["label"][0])
    for i, truth in enumerate([label, "other"]):
        assert model.truth(Truth(f"r{i}", truth, None))
    figures = model.figures()
    assert expected == (figures.truths, figures.right)
    assert 2 == model.metrics()["truths"]


def test_errors_of_callers_are_not_among_the_figures(path):
    """A request that breaks the contract is no failure."""
    model = served(path)
    model.failed(InputError("wrong"))
    assert (0, 0) == (model.figures().requests, model.figures().failures)
    model.failed(EngineError("broken"))
    assert 1 == model.figures().failures


def test_a_change_is_told_once(path):
    """Who waits for the next answer is not told of the last one again."""

    async def main():
        model = served(path)
        ask(model, 1)
        await asyncio.wait_for(model.changed(), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.changed(), 0.05)

    asyncio.run(main())
