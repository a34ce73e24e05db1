"""A bundle as chunks on a broker: windows, lost chunks, restarts, lines that break."""

import asyncio
import socket
import threading
from contextlib import asynccontextmanager, contextmanager, suppress

import numpy as np
import pytest
from support.fetching import fetch, fetcher, model_of, parts
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.config import BrokerConfig
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.link import Link
from edgepack.bundle import open_bundle
from edgepack.fleet import connect, parse_broker_url
from edgepack.fleet.blobs import publish_blobs
from edgepack.wire.throttle import Throttle
from edgepack.wire.topics import CHUNK_BYTES, DeviceTopics, blob_topic, chunk_count

WEIGHTS = np.random.default_rng(0).bytes(30 * CHUNK_BYTES + 100)


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path, model=WEIGHTS)


class FakeLink:
    """Retained chunks in memory; `lose` decides which do not come this time."""

    def __init__(self, path, lose=lambda index, asked: False):
        bundle = open_bundle(path)
        self.chunks = {}
        for blob in bundle.blobs():
            data = bundle.read_blob(blob.digest)
            for index in range(chunk_count(len(data))):
                topic = blob_topic("p", blob.digest, index)
                self.chunks[topic] = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        self.lose = lose
        self.asked = []
        self.given = []

    async def retained(self, topics, *, timeout_s):
        self.asked.append(list(topics))
        came = {}
        for index, topic in enumerate(topics):
            if not self.lose(index, len(self.asked)):
                came[topic] = self.chunks[topic]
                self.given.append(topic)
        return came


def test_a_bundle_comes_in_windows(tmp_path, bundle):
    """Every chunk once, at most sixteen at a time."""
    link = FakeLink(bundle)
    fetch(tmp_path / "state", model_of(bundle, "mqtt:"), link=link)
    assert sorted(link.chunks) == sorted(link.given)
    assert 16 == max(map(len, link.asked))


def test_only_lost_chunks_are_asked_for_again(tmp_path, bundle):
    """What came out of order is held; the window halves when something does not come."""
    link = FakeLink(bundle, lose=lambda index, asked: index % 5 == 0 and asked % 2 == 1)
    fetch(tmp_path / "state", model_of(bundle, "mqtt:"), link=link)
    assert sorted(link.chunks) == sorted(link.given)
    assert len(set(map(len, link.asked))) > 2


def test_what_came_before_a_restart_is_not_asked_for_again(tmp_path, bundle):
    """Whole chunks on disk are hashed again, not fetched again."""

    class Breaks(FakeLink):
        async def retained(self, topics, *, timeout_s):
            if len(self.given) > 20:
                raise FetchError("broker was lost")
            return await super().retained(topics, timeout_s=timeout_s)

    model = model_of(bundle, "mqtt:")
    first, second = Breaks(bundle), FakeLink(bundle)
    with pytest.raises(FetchError):
        fetch(tmp_path / "state", model, link=first)
    (kept_bytes,) = parts(tmp_path / "state").values()
    assert kept_bytes >= 10 * CHUNK_BYTES
    fetch(tmp_path / "state", model, link=second)
    assert sorted(link_topic for link_topic in first.chunks) == sorted(first.given + second.given)


def test_a_torn_chunk_on_disk_is_fetched_again(tmp_path, bundle):
    """A kill in the middle of a write leaves part of a chunk: the whole chunks before it stay."""
    model = model_of(bundle, "mqtt:")
    layer = next(
        layer for layer in open_bundle(bundle).manifest.layers if layer.path.endswith("onnx")
    )
    landing = fetcher(tmp_path / "state")._blobs.landing_for(model.digest)
    landing._part(layer.blob.digest).write_bytes(WEIGHTS[: 7 * CHUNK_BYTES + 11])
    link = FakeLink(bundle)
    fetch(tmp_path / "state", model, link=link)
    asked = [
        index for index in range(31) if blob_topic("p", layer.blob.digest, index) in link.given
    ]
    assert list(range(7, 31)) == asked


def test_a_broker_without_the_bundle_is_a_failed_fetch(tmp_path, bundle):
    """Nothing comes: said after the window has shrunk to one chunk."""
    link = FakeLink(bundle, lose=lambda *_: True)
    with pytest.raises(FetchError, match="gave no blob chunk"):
        fetch(tmp_path / "state", model_of(bundle, "mqtt:"), link=link)
    assert len(link.asked) < 6


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda data: b"", FetchError),
        (lambda data: data[:-1], RejectedError),
        (lambda data: data + b"x", RejectedError),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], RejectedError),
    ],
)
def test_a_chunk_that_is_not_right(tmp_path, bundle, spoil, error):
    """Cleared: another time. Of another size or content: refused."""
    link = FakeLink(bundle)
    topic = next(topic for topic in link.chunks if topic.endswith("/12"))
    link.chunks[topic] = spoil(link.chunks[topic])
    with pytest.raises(error):
        asyncio.run(fetcher(tmp_path / "state", link=link).fetch(model_of(bundle, "mqtt:")))


def test_a_rate_narrows_the_window(tmp_path, bundle):
    """A window that took longer than a chunk may would look like a broken line."""
    link = FakeLink(bundle)
    throttle = Throttle(2.5 * CHUNK_BYTES)
    throttle.delay_s = lambda size_bytes: 0.0
    fetch(tmp_path / "state", model_of(bundle, "mqtt:"), link=link, throttle=throttle)
    assert 2 == max(map(len, link.asked))


class Flapping:
    """A line to a broker that breaks after so many bytes, again and again."""

    def __init__(self, port, after_bytes):
        self._port = port
        self._after_bytes = after_bytes
        self.received_bytes = 0
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            outer = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(inner, outer, None), daemon=True).start()
            threading.Thread(
                target=self._pump, args=(outer, inner, self._after_bytes), daemon=True
            ).start()

    def _pump(self, source, target, limit):
        with suppress(OSError):
            while data := source.recv(65536):
                if limit is not None:
                    self.received_bytes += len(data)
                    limit -= len(data)
                    if limit < 0:
                        break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()


@contextmanager
def flapping(port, after_bytes):
    line = Flapping(port, after_bytes)
    try:
        yield line
    finally:
        line.close()


@asynccontextmanager
async def linked(port):
    async def nothing():
        """Nothing to say."""

    link = Link(
        BrokerConfig(url=f"mqtt://127.0.0.1:{port}"),
        DeviceTopics("p", "d"),
        "flapper",
        subscriptions=["p/d/in/desired"],
        on_connect=nothing,
        on_message=lambda message: None,
    )
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_line_that_breaks_costs_little_more_than_the_bundle(tmp_path, mosquitto, prefix):
    """A real broker behind a line that breaks every megabyte: 4 MB come, hardly a chunk twice."""
    bundle = write_tiny_bundle(tmp_path, model=np.random.default_rng(1).bytes(4_000_000))
    opened = open_bundle(bundle)

    async def main(line):
        async with connect(parse_broker_url(mosquitto.url)) as client:
            await publish_blobs(client, prefix, opened.blobs(), opened.read_blob)
        made = fetcher(tmp_path / "state")
        async with linked(line.port) as link:
            object.__setattr__(made._sources, "link", link)
            object.__setattr__(made._sources, "prefix", prefix)
            model = model_of(bundle, "mqtt:")
            for _ in range(60):
                try:
                    await made.fetch(model)
                except FetchError:  # not connected again yet: as the installer, a little later
                    await asyncio.sleep(0.3)
                else:
                    return

    with flapping(mosquitto.port, 1_200_000) as line:
        asyncio.run(main(line))
    assert line.connections > 3
    assert line.received_bytes < 1.6 * bundle.stat().st_size
