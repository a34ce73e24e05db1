"""The connection to the broker, when the broker or what is said on it fails."""

import asyncio
import contextlib

import aiomqtt
import pytest
from support.brokers import Mosquitto, running

from edgepack.agent.backlog import MAX_BYTES, MAX_MESSAGES, Backlog
from edgepack.agent.config import BrokerConfig
from edgepack.agent.errors import FetchError
from edgepack.agent.link import Link
from edgepack.wire.topics import DeviceTopics

TOPICS = DeviceTopics("edgepack/v1", "link")


async def nothing():
    """Say nothing on a new connection."""


def make_link(broker, on_connect=nothing, **config):
    return Link(
        BrokerConfig(url=broker.url, **config),
        TOPICS,
        "link-test",
        subscriptions=[TOPICS.desired],
        on_connect=on_connect,
        on_message=lambda message: None,
    )


@contextlib.asynccontextmanager
async def connected(link):
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            await link.connected.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("error", [FetchError("slow"), ValueError("a defect")])
def test_what_could_not_be_said_is_said_again(mosquitto, error, caplog):
    """A greeting that fails does not leave a connection that looks alive and says nothing."""
    tries = []

    async def greet():
        tries.append(1)
        if len(tries) < 3:
            raise error

    async def main():
        async with connected(make_link(mosquitto, greet)):
            pass

    asyncio.run(main())
    assert 3 == len(tries)
    assert "broker.greeting" in caplog.text


def test_a_password_file_that_is_missing_now_may_come_back(mosquitto, tmp_path):
    """A secret that is being replaced while the broker restarts does not end the agent."""
    secret = tmp_path / "secret"

    async def main():
        link = make_link(mosquitto, username="u", password_file=str(secret))
        task = asyncio.create_task(link.run())
        await asyncio.sleep(0.1)
        assert not task.done()
        secret.write_text("pw\n")
        async with asyncio.timeout(10):
            await link.connected.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_fetch_ends_with_the_connection(tmp_path):
    """It is tried again on the next one, not after the time for an answer."""

    async def main():
        with running(Mosquitto(tmp_path)) as broker:
            link = make_link(broker)
            async with connected(link):
                asking = asyncio.create_task(link.retained(["edgepack/v1/no/1"], timeout_s=60))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(broker.stop)
                with pytest.raises(FetchError, match="lost"):
                    async with asyncio.timeout(10):
                        await asking

    asyncio.run(main())


class Swallowing:
    """A client as aiomqtt is on Python 3.11: the answer came together with the cancellation."""

    async def publish(self, *args, **kwargs):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    subscribe = publish

    async def unsubscribe(self, *args, **kwargs):
        """Answered at once."""


@pytest.mark.parametrize("call", ["publish", "retained"])
def test_a_cancellation_is_not_lost_in_a_call_to_the_broker(call):
    """Else a SIGTERM that comes together with the broker's answer ends nothing, ever."""

    async def main():
        link = Link(
            BrokerConfig(),
            TOPICS,
            "link-test",
            subscriptions=[],
            on_connect=nothing,
            on_message=lambda message: None,
        )
        link._client = Swallowing()

        async def work():
            if call == "publish":
                await link.publish("t", b"")
            else:
                await link.retained(["t"], timeout_s=60)
            await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        assert {task} == done
        assert task.cancelled()

    asyncio.run(main())


def test_what_waits_is_bounded_by_its_size():
    """Large messages that come faster than they are handled are dropped, not kept in memory."""

    def message(size_bytes):
        return aiomqtt.Message("t", bytes(size_bytes), 0, False, 0, None)

    backlog = Backlog(MAX_MESSAGES)
    size_bytes = 100_000
    with pytest.raises(asyncio.QueueFull):
        for _ in range(MAX_MESSAGES):
            backlog.put_nowait(message(size_bytes))
    assert MAX_BYTES // size_bytes + 1 == backlog.qsize()
    while not backlog.empty():
        backlog.get_nowait()
    for _ in range(MAX_MESSAGES):
        backlog.put_nowait(message(10))
    assert backlog.full()


def test_two_fetches_wait_for_the_same_message(mosquitto):
    """Bundles that share a blob may be fetched at once: both get it, at once."""

    async def main():
        link = make_link(mosquitto)
        async with connected(link):
            topics = ["edgepack/v1/blob/shared/0", "edgepack/v1/blob/shared/1"]
            for topic in topics:
                await link.publish(topic, b"data", retain=True)
            asked = [link.retained(topics, timeout_s=20), link.retained(topics[1:], timeout_s=20)]
            async with asyncio.timeout(10):
                found = await asyncio.gather(*asked)
            for topic in topics:
                await link.publish(topic, b"", retain=True)
            return found

    both, one = asyncio.run(main())
    assert [b"data", b"data"] == list(both.values())
    assert [b"data"] == list(one.values())
