"""Deploying to devices over real brokers: what they get, what is refused, what is merged."""

import asyncio
import secrets
import time
from dataclasses import replace

import pytest
from support.fake_device import FakeDevice

from edgepack.bundle import UntrustedBundleError, digest_of
from edgepack.fleet import (
    BrokerError,
    DeployOptions,
    DeviceRefusedError,
    MergePolicy,
    OvertakenError,
    TargetError,
    Targets,
    WaitTimeoutError,
    connect,
    deploy,
    remove,
    rollback,
)
from edgepack.fleet.blobs import publish_blobs, read_blob
from edgepack.fleet.desired_state import Plan
from edgepack.fleet.devices import find_devices
from edgepack.fleet.follow import Verdict
from edgepack.fleet.publish import write_desired
from edgepack.fleet.retained import read_retained
from edgepack.trust import DESIRED_PAYLOAD_TYPE, PrivateKey, SignatureError, dsse
from edgepack.wire import Audience, Desired, Mode, Release, Reported, ReportedModel, render_desired
from edgepack.wire.topics import DeviceTopics, blob_topic, chunk_count

ONE = Targets(devices=("dev-1",))


def device(operator, name="dev-1", **kwargs):
    return FakeDevice(str(operator.broker), operator.prefix, name, **kwargs)


async def blobs_on(operator):
    """Topics of the chunks that the broker retains."""
    async with connect(operator.broker) as client:
        found = await read_retained(client, operator.prefix, [f"{operator.prefix}/blob/+/+"])
    return set(found)


def topics_of(operator, *bundles):
    return {
        blob_topic(operator.prefix, blob.digest, chunk)
        for bundle in bundles
        for blob in bundle.blobs()
        for chunk in range(chunk_count(blob.size_bytes))
    }


async def desired_on(operator, name="dev-1"):
    async with connect(operator.broker) as client:
        (state,) = await find_devices(client, operator.prefix, Targets(devices=(name,)))
    return operator.signer.verify(state.desired_envelope)


def test_deploy_puts_every_blob_and_a_signed_desired_state_on_the_broker(operator, bundles):
    """A device finds a desired state for itself alone, and by it every blob of the bundle."""
    bundle = bundles()

    async def run():
        steps = []
        async with device(operator) as fake:
            outcome = await deploy(replace(operator, on_device=steps.append), bundle, ONE)
        assert ["dev-1"] == [one.device for one in outcome.devices]
        assert [Verdict.DONE] == [one.verdict for one in outcome.devices]
        phases = [step.phase for step in steps]
        assert ["fetching", "confirmed"] == [phases[phases.index("fetching")], phases[-1]]
        (desired,) = fake.seen
        assert Audience(prefix=operator.prefix, device="dev-1") == desired.audience
        (model,) = desired.models
        assert ("tiny", "1.0.0", bundle.digest) == (model.name, model.version, model.digest)
        assert ("mqtt:",) == model.sources
        assert bundle.size_bytes == model.archive_size_bytes
        assert topics_of(operator, bundle) == await blobs_on(operator)
        async with connect(operator.broker) as client:
            for blob in bundle.blobs():
                data = await read_blob(client, operator.prefix, blob)
                assert blob.digest == digest_of(data)

    asyncio.run(run())


def test_a_device_that_was_never_seen_finds_its_desired_state_later(operator, bundles):
    """A device named by its id gets a desired state before it ever connects, and a note says so."""
    notes = []

    async def run():
        waiting = replace(operator, wait_s=None, on_note=notes.append)
        outcome = await deploy(waiting, bundles(), ONE)
        assert {"dev-1": 1} == outcome.generations
        async with device(operator) as fake:
            await asyncio.sleep(0.3)
            assert "confirmed" == fake.reported.models[0].phase

    asyncio.run(run())
    assert ["dev-1: never seen"] == [note[:17] for note in notes]


def test_a_rejection_is_an_outcome_with_the_devices_reason(operator, bundles):
    """A device that rejects the bundle ends the wait, and the error tells its reason."""
    bundle = bundles()

    async def run():
        async with device(operator, rejects={bundle.digest: "self_test"}):
            return await deploy(operator, bundle, ONE)

    outcome = asyncio.run(run())
    with pytest.raises(DeviceRefusedError, match=r"dev-1 rejected \(self_test\): the fake says so"):
        outcome.raise_refusals()


def test_a_device_that_does_not_follow_the_desired_state_ends_the_wait(operator, bundles):
    """A device that refuses the desired state itself is a refusal, not a timeout."""

    async def run():
        async with device(operator, refuses="signed by a stranger"):
            return await deploy(operator, bundles(), ONE)

    outcome = asyncio.run(run())
    with pytest.raises(DeviceRefusedError, match=r"desired_refused.*signed by a stranger"):
        outcome.raise_refusals()


def test_an_old_refusal_on_the_broker_does_not_end_the_wait(operator, bundles):
    """What a device refused before it went offline is not taken for an answer to this deploy."""
    before = Reported(device="dev-1", generation=0, refused="something long ago")

    async def run():
        async with device(operator, reported=before):
            pass
        with pytest.raises(WaitTimeoutError, match=r"dev-1 \(waiting, offline\)"):
            await deploy(replace(operator, wait_s=1.5), bundles(), ONE)

    asyncio.run(run())


def test_devices_are_found_by_tag_and_all_together(operator, bundles):
    """A tag chooses the devices that carry it; --all chooses all that said hello."""

    async def run():
        async with (
            device(operator, "a", tags={"site": "north", "line": "1"}),
            device(operator, "b", tags={"site": "north"}),
            device(operator, "c", tags={"site": "south"}),
        ):
            north = await deploy(operator, bundles(), Targets(tags={"site": "north"}))
            both = await deploy(operator, bundles(), Targets(tags={"site": "north", "line": "1"}))
            everyone = await deploy(operator, bundles(), Targets(everyone=True))
            with pytest.raises(TargetError, match="no device has the tag site=west"):
                await deploy(operator, bundles(), Targets(tags={"site": "west"}))
        assert {"a": 1, "b": 1} == north.generations
        assert {"a": 2} == both.generations
        assert {"a": 3, "b": 2, "c": 1} == everyone.generations

    asyncio.run(run())


def test_other_models_of_a_device_stay(operator, bundles):
    """Deploying, rolling back and removing one model leave the others in the desired state."""
    first, second, other = bundles(), bundles(version="1.1.0"), bundles(name="other")

    async def run():
        async with device(operator) as fake:
            await deploy(operator, other, ONE)
            await deploy(operator, first, ONE, DeployOptions(floor=50))
            await deploy(operator, second, ONE)
            models = {model.name: model for model in (await desired_on(operator)).models}
            assert {"other": other.digest, "tiny": second.digest} == {
                name: model.digest for name, model in models.items()
            }
            assert 50 == models["tiny"].floor
            with pytest.raises(TargetError, match="sequence 1, below the floor 50"):
                await rollback(operator, "tiny", ONE)
            await remove(operator, "tiny", ONE)
            assert ["other"] == [model.name for model in fake.reported.models]

    asyncio.run(run())


def test_rollback_asks_for_what_the_device_had_before(operator, bundles):
    """A rollback names the device's previous bundle and no source: it is on its disk."""
    first, second = bundles(), bundles(version="1.1.0")

    async def run():
        async with device(operator) as fake:
            await deploy(operator, first, ONE)
            with pytest.raises(TargetError, match="no version of 'tiny' before"):
                await rollback(operator, "tiny", ONE)
            await deploy(operator, second, ONE)
            outcome = await rollback(operator, "tiny", ONE)
            assert (first.digest, "1.0.0") == (outcome.digest, outcome.version)
            assert first.digest == fake.reported.models[0].active.digest
            (entry,) = fake.seen[-1].models
            assert ((), 0) == (entry.sources, entry.manifest_size_bytes)
            with pytest.raises(TargetError, match="reports no model 'absent'"):
                await rollback(operator, "absent", ONE)

    asyncio.run(run())


def test_remove_leaves_devices_without_the_model_alone(operator, bundles):
    """Removing from all devices writes to those only that have the model."""

    async def run():
        async with device(operator, "a"), device(operator, "b"):
            await deploy(operator, bundles(), Targets(devices=("a",)))
            outcome = await remove(operator, "tiny", Targets(everyone=True))
            assert {"a": 2} == outcome.generations
            with pytest.raises(TargetError, match="none of 2 devices has a model 'tiny'"):
                await remove(operator, "tiny", Targets(everyone=True))

    asyncio.run(run())


def test_blobs_go_when_no_desired_state_refers_to_them(operator, bundles):
    """Replacing and removing clears what nobody needs, and nothing that somebody does."""
    first, second = bundles(), bundles(version="1.1.0")

    async def run():
        async with device(operator, "a"), device(operator, "b"):
            a, b = Targets(devices=("a",)), Targets(devices=("b",))
            await deploy(operator, first, Targets(everyone=True))
            await deploy(operator, second, a)
            assert topics_of(operator, first, second) == await blobs_on(operator)
            await deploy(operator, second, b)
            assert topics_of(operator, second) == await blobs_on(operator)
            await remove(operator, "tiny", a)
            assert topics_of(operator, second) == await blobs_on(operator)
            await remove(operator, "tiny", b, keep_blobs=True)
            assert topics_of(operator, second) == await blobs_on(operator)
            await deploy(operator, second, b)
            await remove(operator, "tiny", b)
            assert set() == await blobs_on(operator)

    asyncio.run(run())


def test_only_missing_or_damaged_chunks_are_sent_again(operator, bundles, prefix):
    """A second upload sends nothing; a lost and a damaged chunk are mended, and no others."""
    bundle = bundles()
    largest = max(bundle.blobs(), key=lambda blob: blob.size_bytes)

    async def run():
        async with connect(operator.broker) as client:
            first = await publish_blobs(client, prefix, bundle.blobs(), bundle.read_blob)
            again = await publish_blobs(client, prefix, bundle.blobs(), bundle.read_blob)
            lost, damaged = bundle.blobs()[0], largest
            await client.publish(blob_topic(prefix, lost.digest, 0), b"", qos=1, retain=True)
            await client.publish(blob_topic(prefix, damaged.digest, 0), b"x", qos=1, retain=True)
            mended = await publish_blobs(client, prefix, bundle.blobs(), bundle.read_blob)
        total = sum(blob.size_bytes for blob in bundle.blobs())
        assert (total, 0) == (first.sent_bytes, again.sent_bytes)
        assert lost.size_bytes + damaged.size_bytes == mended.sent_bytes

    asyncio.run(run())


def test_a_bundle_of_two_megabytes_travels_through_the_broker_quickly(operator, prefix):
    """2 MB in 32 chunks are up, checked and down again in seconds."""
    from edgepack.bundle import describe

    data = secrets.token_bytes(2 * 1024 * 1024 + 17)

    async def run():
        async with connect(operator.broker) as client:
            await publish_blobs(client, prefix, [describe(data)], lambda _: data)
            assert data == await read_blob(client, prefix, describe(data))

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 10


def test_a_desired_state_by_a_stranger_stops_the_deploy(operator, bundles, prefix):
    """What is retained but not signed by the deploy role is neither merged nor overwritten."""
    forged = Desired(
        audience=Audience(prefix=prefix, device="dev-1"), generation=7, issued_s=1, expires_s=2
    )
    envelope = dsse.sign(render_desired(forged), DESIRED_PAYLOAD_TYPE, [PrivateKey.generate()])
    topic = DeviceTopics(prefix, "dev-1").desired

    async def run():
        async with connect(operator.broker) as client:
            await client.publish(topic, envelope, qos=1, retain=True)
        with pytest.raises(SignatureError, match="dev-1 on the broker is not to be trusted"):
            await deploy(operator, bundles(), ONE)
        assert envelope == await retained_desired(operator)
        policy = MergePolicy(replace=True)
        waiting = replace(operator, wait_s=None)
        await deploy(waiting, bundles(), ONE, DeployOptions(policy=policy))
        assert 1 == (await desired_on(operator)).generation

    asyncio.run(run())


def test_a_desired_state_meant_for_another_device_is_not_merged(operator, bundles, prefix):
    """A validly signed state that was copied to another device's topic stops the deploy."""

    async def run():
        waiting = replace(operator, wait_s=None)
        await deploy(waiting, bundles(), ONE)
        envelope = await retained_desired(operator)
        async with connect(operator.broker) as client:
            topic = DeviceTopics(prefix, "dev-2").desired
            await client.publish(topic, envelope, qos=1, retain=True)
        with pytest.raises(TargetError, match="dev-2 on the broker is meant for dev-1"):
            await deploy(waiting, bundles(), Targets(devices=("dev-2",)))

    asyncio.run(run())


def test_a_broker_that_forgot_does_not_make_a_device_forget(operator, bundles, prefix):
    """Where the desired state is lost, models that the device reports are not silently removed."""
    running = ReportedModel(
        name="precious",
        phase="confirmed",
        active=Release(digest="sha256:" + "ab" * 32, version="3.0.0", sequence=5),
    )
    reported = Reported(device="dev-1", generation=41, models=(running,))

    async def run():
        waiting = replace(operator, wait_s=None)
        async with device(operator, reported=reported):
            with pytest.raises(TargetError, match="runs precious, but the broker retains no"):
                await deploy(waiting, bundles(), ONE)
            policy = MergePolicy(keep_reported=True)
            await deploy(waiting, bundles(), ONE, DeployOptions(policy=policy))
        desired = await desired_on(operator)
        assert 42 == desired.generation
        assert ["precious", "tiny"] == [model.name for model in desired.models]
        assert () == desired.models[0].sources

    asyncio.run(run())


def test_a_write_that_was_overtaken_is_an_error(operator, bundles, prefix):
    """When another writer's state stands on the broker after ours, the command fails."""

    async def run():
        waiting = replace(operator, wait_s=None)
        await deploy(waiting, bundles(), ONE)
        ours = Plan(
            device="dev-1", old=(), desired=await desired_on(operator), envelope=b"never arrived"
        )
        async with connect(operator.broker) as client:
            overtaking = _Dropping(client)
            with pytest.raises(OvertakenError, match=r"somebody else wrote .* dev-1"):
                await write_desired(overtaking, prefix, [ours])
        async with connect(operator.broker) as client:
            gone = replace(ours, device="dev-3")
            with pytest.raises(BrokerError, match="does not keep the desired state of dev-3"):
                await write_desired(_Dropping(client), prefix, [gone])

    asyncio.run(run())


def test_a_bundle_that_the_root_does_not_trust_is_not_sent(operator, bundles):
    """A stranger's and an unsigned bundle stop before anything reaches the broker."""

    async def run():
        for bundle in (bundles(key=PrivateKey.generate()), bundles(key=None)):
            with pytest.raises(UntrustedBundleError):
                await deploy(operator, bundle, ONE)
        assert set() == await blobs_on(operator)
        waiting = replace(operator, wait_s=None)
        stranger = bundles(key=PrivateKey.generate())
        await deploy(waiting, stranger, ONE, DeployOptions(check=False))
        assert topics_of(operator, stranger) == await blobs_on(operator)

    asyncio.run(run())


def test_via_names_where_devices_fetch_and_puts_no_blobs_on_the_broker(operator, bundles):
    """With a URL the desired state names it, with the file's name where it ends in a slash."""

    async def run():
        waiting = replace(operator, wait_s=None)
        for via, expected in (
            ("https://host/m.edgepack", "https://host/m.edgepack"),
            ("http://host/models/", "http://host/models/tiny-1.0.0.edgepack"),
            ("file:/media/usb/", "file:/media/usb/tiny-1.0.0.edgepack"),
        ):
            await deploy(waiting, bundles(), ONE, DeployOptions(via=(via,)))
            assert (expected,) == (await desired_on(operator)).models[0].sources
        assert set() == await blobs_on(operator)
        for wrong in ("ftp://host/x", "host/x", "http:///x", "https://u:p@host/x"):
            with pytest.raises(TargetError, match="via must"):
                await deploy(waiting, bundles(), ONE, DeployOptions(via=(wrong,)))

    asyncio.run(run())


def test_a_floor_above_the_bundle_itself_is_refused(operator, bundles):
    """A floor that would bar the bundle it comes with is a mistake of the command."""

    async def run():
        with pytest.raises(TargetError, match="at most this bundle's own sequence 100, got 101"):
            await deploy(operator, bundles(), ONE, DeployOptions(floor=101))

    asyncio.run(run())


def test_the_wait_ends_in_time_when_a_device_is_away(operator, bundles):
    """A device that does not answer is named when the time is over."""

    async def run():
        with pytest.raises(WaitTimeoutError, match=r"not done after 0.5 s: dev-1 \(waiting, never"):
            await deploy(replace(operator, wait_s=0.5), bundles(), ONE)

    asyncio.run(run())


async def retained_desired(operator, name="dev-1"):
    topic = DeviceTopics(operator.prefix, name).desired
    async with connect(operator.broker) as client:
        return (await read_retained(client, operator.prefix, [topic])).get(topic)


class _Dropping:
    """A client whose retained messages never reach the broker."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def publish(self, topic, payload, *, retain=False, **kwargs):
        if not retain:
            await self._client.publish(topic, payload, **kwargs)


def test_an_entry_says_when_it_was_asked_for(operator, bundles):
    """Deploying one model is no new wish for another; deploying it again is."""

    async def run():
        waiting = replace(operator, wait_s=None)
        async with device(operator):
            for name in ("one", "two", "one"):
                await deploy(waiting, bundles(name=name), ONE)
        desired = await desired_on(operator)
        assert {"two": 2, "one": 3} == {model.name: model.asked for model in desired.models}

    asyncio.run(run())


def test_an_offer_stands_beside_what_runs(operator, bundles, prefix):
    """The next offer takes its place, and only its blobs; taking it away leaves the rest."""

    async def run():
        waiting = replace(operator, wait_s=None)
        offer = DeployOptions(mode=Mode.OFFER)
        runs, second, third = (bundles(version=f"1.{n}.0") for n in range(3))
        async with device(operator):
            await deploy(waiting, runs, ONE)
            await deploy(waiting, second, ONE, offer)
            await deploy(waiting, third, ONE, offer)
            entries = [(one.digest, one.mode) for one in (await desired_on(operator)).models]
            assert [(runs.digest, Mode.INSTALL), (third.digest, Mode.OFFER)] == entries
            assert topics_of(operator, runs, third) == await blobs_on(operator)
            await remove(waiting, "tiny", ONE, mode=Mode.OFFER)
            assert [runs.digest] == [one.digest for one in (await desired_on(operator)).models]
            assert topics_of(operator, runs) == await blobs_on(operator)

    asyncio.run(run())
