"""The picture of a fleet: what messages make of it, and that it comes from real brokers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_device import FakeDevice

from edgepack.cli.watch import cells
from edgepack.fleet import BrokerError, connect, parse_broker_url
from edgepack.fleet.watch import FleetView, Row, snapshot, watch
from edgepack.wire import Release, Reported, ReportedModel, render_flat, render_reported
from edgepack.wire.topics import DeviceTopics

TOPICS = DeviceTopics("p/v1", "dev-1")
DIGEST = "sha256:" + "ab" * 32
RUNNING = ReportedModel(
    name="tiny",
    phase="confirmed",
    target=DIGEST,
    active=Release(digest=DIGEST, version="1.0.0", sequence=1),
    variant="onnx-fp32",
)
METRICS = {
    "requests": 40,
    "errors": 1,
    "latency_p50_ms": 0.01,
    "latency_p99_ms": 0.05,
    "accuracy": 0.97,
    "accuracy_low": 0.9,
    "accuracy_high": 0.99,
    "truths": 38,
    "drift_features": 2,
    "model_version": "1.0.0",
    "ts": 5,
}


def view_of(*messages):
    view = FleetView("p/v1")
    for topic, payload, now_s in messages:
        view.take(topic, payload, now_s=now_s)
    return view


def reported(model=RUNNING):
    return render_reported(Reported(device="dev-1", generation=1, models=(model,)))


def test_messages_make_rows():
    """Status, reported state and metrics of a device become one row for each model."""
    view = view_of(
        (TOPICS.status, b"online", None),
        (TOPICS.reported, reported(), None),
        (TOPICS.metrics("tiny"), render_flat(METRICS), 12.0),
    )
    expected = Row(
        device="dev-1",
        status="online",
        model="tiny",
        version="1.0.0",
        digest=DIGEST,
        variant="onnx-fp32",
        phase="confirmed",
        latency_p50_ms=0.01,
        latency_p99_ms=0.05,
        requests=40,
        errors=1,
        accuracy=0.97,
        accuracy_low=0.9,
        accuracy_high=0.99,
        truths=38,
        drift_features=2,
        seen_s=12.0,
    )
    assert [expected] == view.rows()


def test_a_device_without_models_has_a_row_of_its_own():
    """A device that has said only its status is shown."""
    assert [Row(device="dev-1", status="offline")] == view_of(
        (TOPICS.status, b"offline", 3.0)
    ).rows()


def test_what_a_device_wants_known_is_shown():
    """The kinds of its notices stand with the device, also when it has no model."""
    state = Reported(device="dev-1", generation=0, notices={"clock": "1970", "conflict": "x"})
    (row,) = view_of((TOPICS.reported, render_reported(state), None)).rows()
    assert "clock, conflict" == row.notices
    assert "says: clock, conflict" in " ".join(cells(row, 0.0))


def test_figures_of_another_version_are_not_shown():
    """After an upgrade the figures of the version before are gone until new ones come."""
    view = view_of(
        (TOPICS.reported, reported(), None),
        (TOPICS.metrics("tiny"), render_flat({**METRICS, "model_version": "0.9.0"}), 1.0),
    )
    assert [None] == [row.latency_p50_ms for row in view.rows()]


def test_what_was_stored_while_offline_does_not_replace_newer_figures():
    """A historical report fills a gap and never overwrites."""
    old = render_flat({**METRICS, "requests": 1, "is_historical": 1})
    topic = TOPICS.metrics("tiny")
    only_old = view_of((TOPICS.reported, reported(), None), (topic, old, 1.0))
    both = view_of(
        (TOPICS.reported, reported(), None), (topic, render_flat(METRICS), 1.0), (topic, old, 2.0)
    )
    assert [1, 40] == [only_old.rows()[0].requests, both.rows()[0].requests]


def test_topics_of_others_change_nothing():
    """A topic outside the prefix, or a document that is none, leaves the picture as it was."""
    view = FleetView("p/v1")
    assert [None, None, None, None] == [
        view.take("other/dev-1/out/status", b"online"),
        view.take("p/v1/dev-1/in/desired", b"{}"),
        view.take("p/v1/bad id/out/status", b"online"),
        view.take("p/v1/dev-1/out/reported", b"[]"),
    ]
    assert [] == [row for row in view.rows() if row.status != "unknown"]


@given(
    kind=st.sampled_from(["status", "info", "reported", "metrics/m", "latest/m", "event/x", "?"]),
    payload=st.binary(max_size=40)
    | st.dictionaries(st.sampled_from(sorted(METRICS)), st.integers() | st.text()).map(render_flat),
)
def test_whatever_a_device_sends_there_are_rows(kind, payload):
    """No message breaks the picture."""
    view = view_of((TOPICS.reported, reported(), None))
    view.take(f"p/v1/dev-1/out/{kind}", payload, now_s=1.0)
    assert all(row.device == "dev-1" for row in view.rows())


def test_a_snapshot_shows_what_the_broker_retains(broker, prefix):
    """Without waiting for anybody, a snapshot has status, models and the latest figures."""
    state = Reported(device="dev-1", generation=1, models=(RUNNING,))

    async def run():
        async with (
            FakeDevice(broker.url, prefix, reported=state) as fake,
            connect(parse_broker_url(broker.url)) as client,
        ):
            topic = DeviceTopics(prefix, fake.device).latest("tiny")
            await client.publish(topic, render_flat(METRICS), qos=0, retain=True)
            await asyncio.sleep(0.1)
            return (await snapshot(parse_broker_url(broker.url), prefix)).rows()

    (row,) = asyncio.run(run())
    assert ("online", "1.0.0", 40, None) == (row.status, row.version, row.requests, row.seen_s)


def test_watching_goes_on_after_the_broker_was_away(own_broker, prefix):
    """A restart of the broker is told once and then waited out."""

    async def run():
        view, seen = FleetView(prefix), []
        changes = watch(parse_broker_url(own_broker.url), prefix, view)
        async with asyncio.timeout(15):
            async with FakeDevice(own_broker.url, prefix):
                while "dev-1" not in seen:
                    seen.append(await anext(changes))
            await asyncio.to_thread(own_broker.stop)
            while seen[-1] != "":
                seen.append(await anext(changes))
            await asyncio.to_thread(own_broker.start)
            async with FakeDevice(own_broker.url, prefix, "dev-2"):
                while seen[-1] != "dev-2":
                    seen.append(await anext(changes))
        await changes.aclose()
        return view

    assert ["dev-1", "dev-2"] == [row.device for row in asyncio.run(run()).rows()]


def test_watching_a_broker_that_is_not_there_fails(prefix):
    """A wrong URL is an error at once, not a wait for ever."""

    async def run():
        await anext(watch(parse_broker_url("mqtt://127.0.0.1:1"), prefix, FleetView(prefix)))

    with pytest.raises(BrokerError, match="cannot reach"):
        asyncio.run(run())


def test_watching_asks_the_devices_that_are_there_for_figures(broker, prefix):
    """A device hears a lease within bounds while somebody looks; nobody else is asked."""
    from edgepack.wire.commands import parse_watch

    async def main():
        view = FleetView(prefix)
        device, away = DeviceTopics(prefix, "here"), DeviceTopics(prefix, "away")
        async with connect(parse_broker_url(broker.url)) as client, asyncio.timeout(30):
            await client.subscribe([(device.command("+"), 1), (away.command("+"), 1)])
            await client.publish(away.status, b"offline", qos=1, retain=True)

            async def look():
                async for _ in watch(parse_broker_url(broker.url), prefix, view, every_s=3.0):
                    pass

            looking = asyncio.create_task(look())
            await client.publish(device.status, b"online", qos=1, retain=True)
            message = await anext(aiter(client.messages))
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            return str(message.topic), parse_watch(message.payload), view.online()

    topic, command, online = asyncio.run(main())
    assert (f"{prefix}/here/in/cmd/watch", {"here"}) == (topic, online)
    assert (60.0, 3.0) == (command.seconds, command.interval_s)
