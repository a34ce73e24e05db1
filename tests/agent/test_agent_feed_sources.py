"""Where messages come from: lines, folders, floods; without an agent's process."""

import asyncio
import contextlib
import io
import json
import logging
import os
import socket
import struct
import sys

import numpy as np
import pytest
from support.image_bundle import COLOURS, colour_images, write_image_bundle
from support.one_model import inference_of
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.agent.config.inputs import FilesConfig, Handled, InputConfig
from edgepack.agent.feed.complaints import EVERY_S, Complaints
from edgepack.agent.feed.feeder import MAX_MESSAGE_BYTES, Feeder
from edgepack.agent.feed.folder_source import FolderSource, Seen, Watch
from edgepack.agent.feed.line_source import LineSocket, read_stdin
from edgepack.bundle.contract import Contract, Datatype, Task, TensorSpec
from edgepack.runtime.dataset_one import read_one
from edgepack.runtime.errors import DatasetError

ROWS = np.random.default_rng(1).normal(size=(6, 4)).round(3)
LABELS = tiny_model().predict(ROWS)["label"].tolist()
LINES = [json.dumps(dict(zip(FEATURES, row, strict=True))).encode() for row in ROWS.tolist()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_image_bundle(tmp_path_factory.mktemp("colours"))


def feeder_of(path, **config):
    inference, registry, predictions = inference_of(path)
    made = InputConfig(name="i", model=registry.model.contract.name, **config)
    feeder = Feeder(made, inference, Complaints("feed.rejected"))
    return feeder, registry, predictions


async def until(condition, what):
    """Wait for something; others run meanwhile."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


@contextlib.asynccontextmanager
async def beside(work):
    """Run something beside, and end it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def told(predictions):
    return [one.answer.label for one in predictions]


def test_lines_wait_for_the_model(tiny, tmp_path):
    """Nothing of what is written before is lost; what cannot be used is passed over."""

    async def main():
        feeder, registry, predictions = feeder_of(tiny, socket="x")
        registry.absent = True
        feeder.check()
        path = tmp_path / "s"
        async with beside(LineSocket(path, feeder).run()):
            await until(path.exists, "socket")
            assert 0o660 == path.stat().st_mode & 0o777
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(LINES[0] + b"\n\n[]\nno\n" + b"x" * (MAX_MESSAGE_BYTES + 9) + b"\n")
            writer.write(LINES[1] + b"\n" + LINES[2])
            writer.write_eof()
            await asyncio.sleep(0.05)
            assert [] == predictions
            registry.absent = False
            feeder.check()
            await until(lambda: len(predictions) == 3, "predictions")
            assert LABELS[:3] == told(predictions)
            counted = feeder.counted()
            assert (6, 3, 3) == tuple(counted[n] for n in ("messages", "predictions", "rejected"))
            writer.close()
        assert not path.exists()

    asyncio.run(main())


def connects(path):
    with socket.socket(socket.AF_UNIX) as client:
        return path.exists() and client.connect_ex(str(path)) == 0


def test_a_socket_that_a_crash_left_behind_is_made_anew(tiny, tmp_path):
    """A file that is no socket is left alone."""

    async def main():
        feeder, _, predictions = feeder_of(tiny, socket="x")
        feeder.check()
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        async with beside(LineSocket(path, feeder).run()):
            await until(lambda: connects(path), "a new socket")
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(LINES[0] + b"\n")
            await until(lambda: len(predictions) == 1, "prediction")
            writer.close()
        path.write_text("precious")
        async with beside(LineSocket(path, feeder).run()):
            await asyncio.sleep(0.05)
        assert "precious" == path.read_text()

    asyncio.run(main())


def test_standard_input_may_be_a_file(tiny, tmp_path, monkeypatch):
    """It is read to its end, and the feed ends without ending anything else."""
    path = tmp_path / "lines"
    path.write_bytes(b"\n".join(LINES))

    async def main():
        feeder, _, predictions = feeder_of(tiny, stdin=True)
        feeder.check()
        with path.open("rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
            await asyncio.wait_for(read_stdin(feeder), 60)
            await until(lambda: len(predictions) == len(LINES), "all lines")
        assert LABELS == told(predictions)

    asyncio.run(main())


def test_when_messages_come_faster_than_answers_the_oldest_go(tiny):
    """They are counted, and the order of the others stays."""

    async def main():
        feeder, _, predictions = feeder_of(tiny, topic="t")
        feeder.check()
        for number in range(300):
            feeder.offer(LINES[number % 6], "t", is_retained=False)
        assert 44 == feeder.counted()["dropped"]
        async with beside(feeder.run()):
            await until(lambda: len(predictions) == 256, "the others")
        assert [LABELS[number % 6] for number in range(44, 300)] == told(predictions)

    asyncio.run(main())


def test_a_model_that_goes_and_comes_back_is_followed(tiny):
    """While it is away messages are counted as refused."""

    async def main():
        feeder, registry, predictions = feeder_of(tiny, topic="t")
        feeder.check()
        async with beside(feeder.run()):
            feeder.offer(LINES[0], "t", is_retained=False)
            await until(lambda: len(predictions) == 1, "first")
            registry.absent = True
            feeder.check()
            feeder.offer(LINES[1], "t", is_retained=False)
            await until(lambda: feeder.counted()["rejected"] == 1, "refused")
            registry.absent = False
            feeder.check()
            feeder.offer(LINES[2], "t", is_retained=False)
            await until(lambda: len(predictions) == 2, "second")
        assert [LABELS[0], LABELS[2]] == told(predictions)

    asyncio.run(main())


def test_what_goes_wrong_is_said_at_a_bounded_rate(caplog):
    """The first of each kind at once, the others counted."""
    now_s = [0.0]
    complaints = Complaints("feed.rejected", clock=lambda: now_s[0])
    with caplog.at_level(logging.WARNING):
        for second in range(121):
            now_s[0] = float(second)
            complaints.add("i", "missing", "x")
        complaints.add("i", "late", "y")
    lines = [record.getMessage() for record in caplog.records]
    assert EVERY_S == 60
    assert [(0, "missing"), (59, "missing"), (59, "missing"), (0, "late")] == [
        (int(line.split("held_back=")[1].split()[0]), line.split("reason=")[1].split()[0])
        for line in lines
    ]


def seen(number, size=1):
    return Seen(size, number, number)


def test_a_file_is_complete_when_it_has_not_changed_for_a_while():
    """Files come in the order in which they were written; a change begins the wait anew."""
    watch = Watch(1.0, {})
    assert [] == watch.look({"a": seen(2), "b": seen(1)}, 0)
    assert [] == watch.look({"a": seen(2, size=5), "b": seen(1)}, 0.9)
    assert ["b"] == watch.look({"a": seen(2, size=5), "b": seen(1)}, 1.0)
    watch.handled("b")
    assert watch.is_waiting
    assert ["a"] == watch.look({"a": seen(2, size=5), "b": seen(1)}, 2)
    watch.handled("a")
    assert not watch.is_waiting
    assert [] == watch.look({"a": seen(2, size=5), "b": seen(1)}, 9)
    assert [] == watch.look({"a": seen(2, size=5), "b": seen(7)}, 10)
    assert ["b"] == watch.look({"a": seen(2, size=5), "b": seen(7)}, 11)


def test_what_was_known_at_the_start_is_passed_over():
    """Until it is written anew."""
    watch = Watch(0, {"a": seen(1)})
    assert ["b"] == watch.look({"a": seen(1), "b": seen(2)}, 0)
    assert ["b", "a"] == watch.look({"a": seen(3), "b": seen(2)}, 1)


def save_image(path, pixels):
    """As a camera does: under another name first."""
    from PIL import Image

    part = path.with_name(path.name + ".part")
    Image.fromarray(pixels).save(part, format="PNG")
    part.replace(path)


@pytest.mark.parametrize("handled", list(Handled))
def test_images_of_a_folder_are_predicted_and_put_away(colours, tmp_path, handled):
    """Complete ones only, each once; what cannot be used is set aside and counted."""
    images, labels = colour_images(4, side=10, seed=3)
    spool = tmp_path / "spool"
    spool.mkdir()
    save_image(spool / "before.png", images[3])
    os.utime(spool / "before.png", (1, 1))
    keeps = handled is Handled.KEEP

    async def main():
        config = FilesConfig(
            path=str(spool), handled=handled, settle_s=0.05, poll_s=0.02, max_file_mb=0.1
        )
        feeder, registry, predictions = feeder_of(colours, files=config)
        registry.absent = True
        source = FolderSource(config, feeder)
        async with beside(source.run()):
            await until(lambda: source.is_watching, "it has looked at what is there")
            for number in range(3):
                save_image(spool / f"{number}.png", images[number])
                os.utime(spool / f"{number}.png", (10 + number, 10 + number))
            (spool / "unfinished.png.part").write_bytes(b"half")
            (spool / ".hidden.png").write_bytes(b"x")
            (spool / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
            (spool / "large.png").write_bytes(bytes(100_001))
            (spool / "link.png").symlink_to(spool / "0.png")
            registry.absent = False
            feeder.check()
            expected = ["0.png", "1.png", "2.png"]
            if not keeps:
                expected = ["before.png", *expected]
            await until(
                lambda: len(predictions) == len(expected) and feeder.counted()["rejected"] == 2,
                "all files",
            )
            names = [] if keeps else [*expected, "broken.png", "large.png"]
            await until(
                lambda: not any((spool / name).exists() for name in names), "files are put away"
            )
            await asyncio.sleep(0.1)  # nothing is handled twice
            assert sorted(expected) == sorted(one.request_id for one in predictions)
            by_name = {one.request_id: one.answer.label for one in predictions}
            assert labels[:3].tolist() == [by_name[f"{number}.png"] for number in range(3)]
        return expected

    expected = asyncio.run(main())
    left = {path.name for path in spool.iterdir() if path.is_file() and not path.is_symlink()}
    folders = {
        path.name: {one.name for one in path.iterdir()} for path in spool.iterdir() if path.is_dir()
    }
    kept = {".hidden.png", "unfinished.png.part"}
    bad = {"broken.png", "large.png"}
    assert {
        Handled.MOVE: (kept, {"done": set(expected), "failed": bad}),
        Handled.DELETE: (kept, {"failed": bad}),
        Handled.KEEP: (kept | bad | {*expected, "before.png"}, {}),
    }[handled] == (left, folders)


def test_files_that_are_done_do_not_fill_the_disk(colours, tmp_path):
    """The oldest go."""
    images, _ = colour_images(5, side=8)

    async def main():
        config = FilesConfig(path=str(tmp_path), settle_s=0, poll_s=0.02, max_done=2)
        feeder, _, predictions = feeder_of(colours, files=config)
        feeder.check()
        for number, image in enumerate(images):
            save_image(tmp_path / f"{number}.png", image)
            os.utime(tmp_path / f"{number}.png", (10 + number, 10 + number))
        async with beside(FolderSource(config, feeder).run()):
            await until(lambda: len(predictions) == 5, "all")
            await until(lambda: not (tmp_path / "4.png").exists(), "the last is put away")
        assert ["3.png", "4.png"] == sorted(path.name for path in (tmp_path / "done").iterdir())

    asyncio.run(main())


def contract(shape, datatype=Datatype.FP32, pre=()):
    return Contract(
        name="m",
        version="1",
        task=Task.CLASSIFICATION,
        inputs=(TensorSpec(name="x", datatype=datatype, shape=shape),),
        outputs=(TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),),
        variants=(),
        golden="g",
        pre=pre,
    )


def wav(samples, rate_hz=8000):
    data = np.asarray(samples, "<i2").tobytes()
    layout = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data


def test_a_wav_file_is_one_sample(tmp_path):
    """Cut or filled up to the model's length; another rate than the steps' is refused."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav([0, 16384, -32768]))
    assert [[0.0, 0.5, -1.0, 0.0]] == read_one(path, contract((-1, 4)))["x"].tolist()
    assert [[0.0, 0.5]] == read_one(path, contract((-1, 2)))["x"].tolist()
    mel = {"step": "log-mel", "input": "x", "rate": 16000, "frame": 2, "hop": 1, "mels": 2}
    with pytest.raises(DatasetError, match="must have 16000 Hz, got 8000 Hz"):
        read_one(path, contract((-1, 4), pre=(mel,)))
    with pytest.raises(DatasetError, match="is a WAV file, the model takes images"):
        read_one(path, contract((-1, 4, 4, 3)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((-1, 8, 8, 3), (1, 8, 8, 3)), ((-1, 3, 8, 8), (1, 3, 8, 8)), ((-1, 4, 4, 1), (1, 4, 4, 1))],
)
def test_an_image_gets_the_size_and_the_channels_that_the_model_fixes(shape, expected, tmp_path):
    """In its layout."""
    images, _ = colour_images(1, side=8)
    save_image(tmp_path / "a.png", images[0])
    found = read_one(tmp_path / "a.png", contract(shape, Datatype.UINT8))["x"]
    assert expected == found.shape
    if expected[3] == 3:
        assert np.array_equal(images, found)
    with pytest.raises(DatasetError, match="is an image, the model takes"):
        read_one(tmp_path / "a.png", contract((-1, 4)))
    assert "red" in COLOURS
