"""A challenger's process: what it compares, what it drops, and how it ends."""

import asyncio
import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.large_weights import stored
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.agent.config import ProbationConfig, ShadowConfig
from edgepack.agent.errors import RejectedError
from edgepack.agent.install.slot import Installed
from edgepack.agent.serve import shadow as shadow_module
from edgepack.agent.serve.shadow import Shadow
from edgepack.agent.serve.shadow_frames import Work, parse_frame, render_frame
from edgepack.bundle import open_bundle
from edgepack.wire.messages import Release

ROWS = np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32)


class Challenger:
    """A challenger of `tiny_model(1)` in a store of its own, and what was said of it."""

    def __init__(self, folder, *, model=None, **config):
        path = write_tiny_bundle(folder, seed=1, model=model)
        bundle = open_bundle(path)
        stored(bundle, folder / "store")
        release = Release(digest=bundle.digest, version="1.0.0", sequence=1)
        self.failures = []
        self.shadow = Shadow(
            Installed(release=release, variant="onnx-fp32"),
            folder / "store",
            ShadowConfig(**config),
            ProbationConfig(),
            failed=self.failures.append,
        )

    def offer(self, rows):
        self.shadow.offer({"x": rows}, tiny_model(0).predict(rows))

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


def test_it_is_compared_with_what_was_answered(tmp_path):
    """Every sample of every request counts."""

    async def main():
        challenger = Challenger(tmp_path)
        await challenger.shadow.start()
        for start in range(0, 40, 8):
            challenger.offer(ROWS[start : start + 8])
        await challenger.until(lambda: challenger.shadow.requests == 5)
        await challenger.shadow.end()
        return challenger

    challenger = asyncio.run(main())
    differing = tiny_model(0).predict(ROWS)["label"] != tiny_model(1).predict(ROWS)["label"]
    metrics = challenger.shadow.metrics()
    assert float(differing.mean()) == metrics["shadow_disagreement"]
    assert (0, 0, []) == (metrics["shadow_errors"], metrics["shadow_dropped"], challenger.failures)
    assert 0 < metrics["shadow_latency_p50_ms"] <= metrics["shadow_latency_p99_ms"]
    assert metrics["shadow_memory_bytes"] > 1e7


def test_what_it_cannot_keep_up_with_is_dropped_and_counted(tmp_path):
    """By number and by weight; offering never waits."""
    challenger = Challenger(tmp_path, queue=3)
    for _ in range(10):
        challenger.offer(ROWS)
    assert 7 == challenger.shadow.dropped
    heavy = Challenger(tmp_path, queue_mb=0.003)
    for _ in range(10):
        heavy.offer(ROWS)  # 640 bytes of inputs, 480 of probabilities, 320 of references to labels
    assert 8 == heavy.shadow.dropped


def test_a_process_that_dies_is_told_once(tmp_path):
    """As the kernel ends it when memory runs out."""

    async def main():
        challenger = Challenger(tmp_path)
        await challenger.shadow.start()
        os.kill(challenger.shadow._process.pid, signal.SIGKILL)
        challenger.offer(ROWS)
        await challenger.until(lambda: challenger.failures)
        challenger.offer(ROWS)
        await asyncio.sleep(0.05)
        assert ["its process ended: signal SIGKILL"] == challenger.failures
        await challenger.shadow.end()

    asyncio.run(main())


def test_a_process_that_is_stopped_with_the_service_comes_back(tmp_path, monkeypatch):
    """SIGTERM goes to every process of a service, and says nothing about a model."""
    monkeypatch.setattr(shadow_module, "_RESTART_S", 0.01)

    async def main():
        challenger = Challenger(tmp_path)
        await challenger.shadow.start()
        os.kill(challenger.shadow._process.pid, signal.SIGTERM)
        challenger.offer(ROWS)
        await asyncio.sleep(0.1)
        challenger.offer(ROWS)
        await challenger.until(lambda: challenger.shadow.requests)
        await challenger.shadow.end()
        assert [] == challenger.failures

    asyncio.run(main())


def test_a_model_that_fails_on_every_input_goes(tmp_path):
    """Errors are counted, and a few are enough."""

    async def main():
        challenger = Challenger(tmp_path)
        await challenger.shadow.start()
        for _ in range(5):
            challenger.shadow.offer({"x": ROWS[:, :3]}, tiny_model(0).predict(ROWS))
        await challenger.until(lambda: challenger.failures)
        assert challenger.failures[0].startswith("3 of 3 inputs failed: ")
        await challenger.shadow.end()

    asyncio.run(main())


@pytest.mark.parametrize(("model", "memory_mb"), [(b"not onnx at all", 512), (None, 0.001)])
def test_a_model_that_does_not_load_is_refused(tmp_path, model, memory_mb):
    """A broken file, or too little memory for it."""

    async def main():
        challenger = Challenger(tmp_path, model=model, memory_mb=memory_mb)
        with pytest.raises(RejectedError) as caught:
            await challenger.shadow.start()
        await challenger.shadow.end()
        assert "shadow_failed" == caught.value.reason
        assert challenger.shadow._process.returncode != 0 or "does not load" in str(caught.value)

    asyncio.run(main())


def test_a_process_whose_agent_is_gone_ends(tmp_path):
    """Its standard input ends."""

    async def main():
        challenger = Challenger(tmp_path)
        await challenger.shadow.start()
        process = challenger.shadow._process
        process.stdin.close()
        async with asyncio.timeout(10):
            assert 0 == await process.wait()
        await challenger.shadow.end()

    asyncio.run(main())


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8),
    st.lists(st.text(max_size=5), min_size=1, max_size=4),
)
def test_frames_come_back_as_they_were(numbers, words):
    """Numbers bit by bit, and any text."""
    text = np.empty(len(words), dtype=object)
    text[:] = words
    work = Work(
        inputs={"x": np.array([numbers], np.float32), "kind": text.reshape(1, -1)},
        outputs={"label": text},
    )
    again = parse_frame(render_frame(work)[4:])
    assert np.array_equal(work.inputs["x"], again.inputs["x"])
    assert work.inputs["kind"].tolist() == again.inputs["kind"].tolist()
    assert words == again.outputs["label"].tolist()


def test_offering_is_quick_whatever_the_process_does(tmp_path):
    """A stopped process holds nobody up: what does not fit is dropped."""

    async def main():
        challenger = Challenger(tmp_path, queue=4)
        await challenger.shadow.start()
        os.kill(challenger.shadow._process.pid, signal.SIGSTOP)
        for _ in range(50):
            challenger.offer(ROWS)
            await asyncio.sleep(0)
        assert challenger.shadow.dropped >= 50 - 4 - 2
        await challenger.shadow.end()

    asyncio.run(main())
