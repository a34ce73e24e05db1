"""The sender empties the outbox: live first, what waited in order and paced."""

import asyncio
import contextlib
import json

import pytest

from edgepack.agent.config import OutboxConfig
from edgepack.agent.errors import FetchError
from edgepack.agent.report.outbox import Outbox, Rank
from edgepack.agent.report.pace import Pace
from edgepack.agent.report.sender import Sender

FAST = OutboxConfig(replay_per_s=1e6, replay_kbps=1e6)
NEVER = OutboxConfig(replay_per_s=1e-3, replay_kbps=1e6)


class FakeLink:
    """A connection that a test makes, loses, and holds back."""

    def __init__(self):
        self.connected = asyncio.Event()
        self.sent = []
        self.open = asyncio.Event()
        self.open.set()
        self.most = self.under_way = 0
        self.fails = 0

    async def publish(self, topic, payload):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
            if self.fails:
                self.fails -= 1
                raise FetchError("lost")
            self.sent.append((topic, json.loads(payload)))
        finally:
            self.under_way -= 1

    def topics(self):
        return [topic for topic, _ in self.sent]


@contextlib.asynccontextmanager
async def sending(outbox, config, link):
    sender = Sender(outbox, config, link)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_what_waited_is_sent_in_order_and_says_so(tmp_path):
    """Events first, each kind oldest first, all of them marked as told late."""

    async def main():
        outbox, link = Outbox(tmp_path / "o.db", max_rows=1000), FakeLink()
        for number in range(200):
            rank = Rank.EVENT if number % 3 == 0 else Rank.METRIC
            outbox.put(f"{rank.name} {number:03}", b"{}", rank=rank)
        async with sending(outbox, FAST, link) as sender:
            sender.connected()
            link.connected.set()
            await until(lambda: len(outbox) == 0)
        return link, outbox

    link, outbox = asyncio.run(main())
    assert sorted(link.topics()) == link.topics()
    assert 200 == len(link.sent)
    assert {1} == {document["is_historical"] for _, document in link.sent}
    assert 1 < link.most <= 12
    outbox.close()
    assert 0 == len(Outbox(tmp_path / "o.db", max_rows=1000))


def test_live_reports_do_not_wait_for_what_waited(tmp_path):
    """However slowly the backlog goes, what happens now is told now."""

    async def main():
        outbox, link = Outbox(tmp_path / "o.db", max_rows=1000), FakeLink()
        for number in range(100):
            outbox.put(f"old {number}", b"{}", rank=Rank.EVENT)
        async with sending(outbox, NEVER, link) as sender:
            sender.connected()
            link.connected.set()
            await until(lambda: link.topics() == ["old 0"])  # the first is free
            for number in range(30):
                outbox.put(f"now {number}", b"{}", rank=Rank.METRIC, live=True)
                sender.filled()
            await until(lambda: len(link.sent) == 31)
        return link, len(outbox)

    link, left = asyncio.run(main())
    assert ["old 0", *(f"now {number}" for number in range(30))] == link.topics()
    assert not any("is_historical" in document for _, document in link.sent[1:])
    assert 99 == left


def test_nothing_is_lost_when_the_connection_is(tmp_path):
    """What was under way is sent again, with the same id, and then counts as told late."""

    async def main():
        outbox, link = Outbox(tmp_path / "o.db", max_rows=1000), FakeLink()
        async with sending(outbox, FAST, link) as sender:
            link.connected.set()
            sender.connected()
            link.open.clear()
            for number in range(20):
                outbox.put(f"{number:02}", b"{}", rank=Rank.METRIC, live=True)
                sender.filled()
            await until(lambda: link.under_way == 16)
            link.fails = 16
            link.connected.clear()
            link.open.set()
            await until(lambda: link.under_way == 0)
            sender.connected()
            link.connected.set()
            await until(lambda: len(outbox) == 0)
        return link

    link = asyncio.run(main())
    assert [f"{number:02}" for number in range(20)] == link.topics()
    assert 20 == len({document["message_id"] for _, document in link.sent})
    assert {1} == {document["is_historical"] for _, document in link.sent}


def test_metrics_that_cannot_be_sent_are_written_together(tmp_path):
    """After `flush_s`, in one go."""

    async def main():
        outbox, link = Outbox(tmp_path / "o.db", max_rows=1000), FakeLink()
        config = OutboxConfig(flush_s=0.01)
        async with sending(outbox, config, link) as sender:
            for number in range(5):
                outbox.put(f"{number}", b"{}", rank=Rank.METRIC)
                sender.filled()
            assert not outbox.is_settled
            await until(lambda: outbox.is_settled)
        return len(outbox)

    assert 5 == asyncio.run(main())


@pytest.mark.parametrize(
    ("messages_s", "bytes_s", "size_bytes", "expected_s"),
    [
        (10, 1e9, 100, 9.0),  # 10 at once, then 10 a second
        (1e9, 1000, 100, 9.0),
        (1e9, 1000, 5000, 495.0),  # larger than a second's worth: each pays for itself
        (0.5, 1e9, 100, 198.0),
    ],
)
def test_the_pace_keeps_both_rates(messages_s, bytes_s, size_bytes, expected_s):
    """Messages and bytes a second, in the long run and after one second's burst."""
    now_s = [100.0]
    pace = Pace(messages_s, bytes_s, clock=lambda: now_s[0])
    for _ in range(100):
        now_s[0] += pace.delay_s()
        assert 1e-9 > pace.delay_s()
        pace.take(size_bytes)
    assert pytest.approx(expected_s, rel=0.02) == now_s[0] - 100.0


def test_a_long_pause_saves_up_no_more_than_a_second():
    """Days offline do not allow a flood."""
    now_s = [0.0]
    pace = Pace(10, 1e9, clock=lambda: now_s[0])
    now_s[0] = 1e6
    sent = 0
    while pace.delay_s() == 0:
        pace.take(1)
        sent += 1
    assert 10 == sent
