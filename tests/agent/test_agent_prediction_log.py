"""The log of predictions on the device."""

import asyncio
import json

import numpy as np
import pytest

from edgepack.agent.config import LogConfig
from edgepack.agent.feed.prediction_log import PredictionLog
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.requests import Answer
from edgepack.bundle.contract import Datatype, TensorSpec

SPECS = (
    TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), feature_names=("temp", "name")),
    TensorSpec(name="image", datatype=Datatype.UINT8, shape=(-1, 20, 20)),
)
INPUTS = {
    "x": np.array([[21.5, 3.0]], np.float32),
    "image": np.zeros((1, 20, 20), np.uint8),
}


def prediction(number=0):
    return Prediction(
        model="m",
        version="1.2.3",
        request_id=f"r{number}",
        inputs=INPUTS,
        outputs={},
        answer=Answer("ok", 0.5, None, {}),
        is_told=False,
        source="s",
    )


def logged(tmp_path, count, **config):
    """What is written for so many predictions: the lines of the file, and of the one before."""
    path = tmp_path / "log" / "predictions.jsonl"

    async def main():
        log = PredictionLog(LogConfig(predictions=True, path=str(path), **config))
        for number in range(count):
            log.take(prediction(number), SPECS)
            if number % 100 == 99:
                log.close()  # as the interval does
        log.close()
        return log.dropped

    dropped = asyncio.run(main())
    before = path.with_name("predictions.jsonl.1")
    return [
        [json.loads(line) for line in one.read_text().splitlines()] if one.exists() else []
        for one in (path, before)
    ] + [dropped]


def test_a_line_holds_the_prediction(tmp_path):
    """Without what the model was asked, unless that is wanted."""
    (line,), before, dropped = logged(tmp_path, 1)
    assert 0 < line.pop("ts")
    assert ([], 0) == (before, dropped)
    assert {
        "model": "m",
        "model_version": "1.2.3",
        "label": "ok",
        "confidence": 0.5,
        "source": "s",
        "request_id": "r0",
    } == line


def test_inputs_are_written_on_demand_and_redacted_by_name(tmp_path):
    """Of a large one the shape."""
    ((line,), _, _) = logged(tmp_path, 1, inputs=True, redact=("name", "source"))
    assert (21.5, "redacted", "redacted", "20x20") == (
        line["input.temp"],
        line["input.name"],
        line["source"],
        line["input.image.shape"],
    )


def test_the_log_is_bounded(tmp_path):
    """The newest lines stay, in order; both files together are no larger than `max_mb`."""
    now, before, dropped = logged(tmp_path, 2000, max_mb=0.05)
    numbers = [int(line["request_id"][1:]) for line in before + now]
    assert list(range(numbers[0], 2000)) == numbers
    assert 0 == dropped
    sizes = [path.stat().st_size for path in (tmp_path / "log").iterdir()]
    assert 25_000 < sum(sizes) <= 50_000


def test_a_disk_that_takes_nothing_costs_lines_and_no_more(tmp_path, caplog):
    """They are counted, and it is said once."""
    (tmp_path / "log").write_text("a file where the folder should be")

    async def main():
        path = tmp_path / "log" / "predictions.jsonl"
        log = PredictionLog(LogConfig(predictions=True, path=str(path)))
        for _ in range(3):
            log.take(prediction(), SPECS)
            log.close()
        return log.dropped

    assert 3 == asyncio.run(main())
    assert 1 == len([line for line in caplog.messages if "log.unusable" in line])


@pytest.mark.parametrize("count", [10, 2000])
def test_lines_are_written_in_groups(tmp_path, count):
    """When there are many, or the interval is over."""
    path = tmp_path / "predictions.jsonl"

    async def main():
        config = LogConfig(predictions=True, path=str(path), flush_s=0.05 if count == 10 else 3600)
        log = PredictionLog(config)
        task = asyncio.create_task(log.run())
        for number in range(count):
            log.take(prediction(number), SPECS)
        assert not path.exists()
        for _ in range(3000):
            if path.exists() and path.read_bytes().count(b"\n") == count:
                break
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert count == len(path.read_text().splitlines())
