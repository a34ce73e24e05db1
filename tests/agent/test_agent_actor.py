"""What becomes of an action's message when its broker is away."""

import asyncio
import json

from edgepack.agent.config.actions import ActionConfig, On, ResetConfig, WhenConfig
from edgepack.agent.errors import FetchError
from edgepack.agent.feed import actor as actor_module
from edgepack.agent.feed.actor import Actor
from edgepack.agent.feed.complaints import Complaints
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.requests import Answer
from edgepack.wire.topics import DeviceTopics

CONFIG = ActionConfig(
    name="stop",
    model="m",
    when=WhenConfig(labels=("x",)),
    on=On.EACH,
    payload={"n": "${request_id}", "device": "${device}"},
    reset=ResetConfig(payload="go", topic="plant/go", retain=True, qos=0),
)


class FakeLink:
    """A connection that fails as often as it is told."""

    def __init__(self, failures=0):
        self.connected = asyncio.Event()
        self.failures = failures
        self.sent = []

    async def publish(self, topic, payload, *, qos, retain):
        if self.failures:
            self.failures -= 1
            raise FetchError("broker went away")
        self.sent.append((topic, payload, qos, retain))


def prediction(number, label="x", model="m"):
    return Prediction(
        model=model,
        version="1",
        request_id=str(number),
        inputs={},
        outputs={},
        answer=Answer(label, 0.9, None, {}),
        is_told=False,
        source="s",
    )


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def follow(link, steps):
    """Run an actor while something happens to it."""

    async def main():
        made = Actor(CONFIG, DeviceTopics("p", "d"), link, Complaints("action.lost"))
        task = asyncio.create_task(made.run())
        await steps(made)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_message_goes_to_its_topic_or_the_devices_own():
    """In order, with the reset's own topic, quality and retention."""
    link = FakeLink()

    async def steps(made):
        link.connected.set()
        made.take(prediction(1, model="other"))
        made.take(prediction(1))
        made.take(prediction(2, label="y"))
        await until(lambda: made.done == 2)

    follow(link, steps)
    (topic, payload, *rest), reset = link.sent
    assert ("p/d/out/action/stop", [1, False]) == (topic, rest)
    assert {"n": "1", "device": "d"} == json.loads(payload)
    assert ("plant/go", b"go", 0, True) == reset


def test_a_broker_that_fails_once_gets_the_message_in_the_end():
    """Once."""
    link = FakeLink(failures=1)

    async def steps(made):
        link.connected.set()
        made.take(prediction(1))
        await until(lambda: made.done == 1)

    follow(link, steps)
    assert 1 == len(link.sent)


def test_a_message_that_would_come_late_is_dropped(monkeypatch, caplog):
    """It is counted and said; later ones are published."""
    monkeypatch.setattr(actor_module, "LATE_S", 0.05)
    link = FakeLink()

    async def steps(made):
        made.take(prediction(1))
        await until(lambda: made.lost == 1)
        monkeypatch.setattr(actor_module, "LATE_S", 3600)
        link.connected.set()
        made.take(prediction(2))
        await until(lambda: made.done == 1)

    follow(link, steps)
    assert ["2"] == [json.loads(payload)["n"] for _, payload, _, _ in link.sent]
    assert 1 == len([line for line in caplog.messages if "action.lost name=stop" in line])


def test_only_so_many_messages_wait():
    """The oldest go."""
    link = FakeLink()

    async def steps(made):
        for number in range(70):
            made.take(prediction(number))
        assert 6 == made.lost
        link.connected.set()
        await until(lambda: made.done == 64)

    follow(link, steps)
    assert [str(number) for number in range(6, 70)] == [
        json.loads(payload)["n"] for _, payload, _, _ in link.sent
    ]
