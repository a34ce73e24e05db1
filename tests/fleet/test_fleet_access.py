"""The access rules of docs/mqtt.md, enforced by a real mosquitto."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.brokers import LOOPBACK, Mosquitto, running
from support.fake_device import FakeDevice

from edgepack.fleet import BrokerError, Operator, Targets, connect, deploy, parse_broker_url
from edgepack.fleet.retained import read_retained
from edgepack.wire import DEFAULT_PREFIX, DeviceTopics

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
DEVICE = DeviceTopics(DEFAULT_PREFIX, "dev-1")
OTHER = DeviceTopics(DEFAULT_PREFIX, "dev-2")
BLOB = f"{DEFAULT_PREFIX}/blob/{'ab' * 32}/0"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A mosquitto with the documented rules; a user name needs no password here."""
    folder = tmp_path_factory.mktemp("guarded")
    (rules,) = re.findall(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    (folder / "acl").write_text(rules)
    with running(Mosquitto(folder, extra=f"allow_anonymous true\nacl_file {folder}/acl")) as broker:
        yield broker


def url(broker, user):
    return f"mqtt://{user}:x@{LOOPBACK}:{broker.port}"


def test_an_operator_can_deploy_to_a_device_under_the_rules(guarded, keys, bundles):
    """The rules allow all that a deployment and its wait need, on both sides."""
    operator = Operator(
        broker=parse_broker_url(url(guarded, "operator")), signer=keys.signer, wait_s=10.0
    )

    async def run():
        async with FakeDevice(url(guarded, "dev-3"), DEFAULT_PREFIX, "dev-3"):
            return await deploy(operator, bundles(), Targets(everyone=True))

    assert ["confirmed"] == [one.phase for one in asyncio.run(run()).devices]


@pytest.mark.parametrize(
    ("user", "topic", "allowed"),
    [
        ("operator", DEVICE.desired, True),
        ("operator", BLOB, True),
        ("operator", DEVICE.status, False),
        ("application", DEVICE.infer("m"), True),
        ("application", DEVICE.truth("m"), True),
        ("application", DEVICE.desired, False),
        ("application", BLOB, False),
        ("dev-1", DEVICE.status, True),
        ("dev-1", f"{DEVICE.base}/out/reply/someone", True),
        ("dev-1", DEVICE.desired, False),
        ("dev-1", OTHER.status, False),
        ("dev-1", OTHER.desired, False),
        ("dev-1", BLOB, False),
        ("dev-1", "homeassistant/device/x/config", False),
    ],
)
def test_who_may_write_where(guarded, user, topic, allowed):
    """Each writes only where it has to; what is not allowed reaches nobody."""

    async def run():
        async with connect(parse_broker_url(url(guarded, user))) as client:
            await client.publish(topic, b"written", qos=1, retain=True)
        # nobody may read everything: each topic is read by the one who may
        reader = "operator" if topic != DEVICE.infer("m") else "dev-1"
        reader = "dev-1" if topic == DEVICE.truth("m") else reader
        async with connect(parse_broker_url(url(guarded, reader))) as client:
            await client.subscribe(topic, qos=1)
            try:
                async with asyncio.timeout(0.3):
                    message = await anext(aiter(client.messages))
            except TimeoutError:
                return None
        async with connect(parse_broker_url(url(guarded, user))) as client:
            await client.publish(topic, b"", qos=1, retain=True)
        return message.payload

    assert (b"written" if allowed else None) == asyncio.run(run())


def test_a_device_does_not_read_what_is_for_another(guarded):
    """A device sees neither requests nor reports of another one."""

    async def run():
        async with (
            connect(parse_broker_url(url(guarded, "operator"))) as operator,
            connect(parse_broker_url(url(guarded, "dev-2"))) as device,
        ):
            await operator.publish(DEVICE.desired, b"for dev-1", qos=1, retain=True)
            found = await read_retained(
                device,
                DEFAULT_PREFIX,
                [f"{DEFAULT_PREFIX}/+/in/desired"],
                timeout_s=0.3,
                strict=False,
            )
            await operator.publish(DEVICE.desired, b"", qos=1, retain=True)
        return found

    assert {} == asyncio.run(run())


def test_a_deployment_that_the_rules_forbid_is_told(guarded, keys, bundles):
    """Where a user may not write, deploy says what is missing instead of hanging or lying."""
    operator = Operator(
        broker=parse_broker_url(url(guarded, "operator")), signer=keys.signer, wait_s=None
    )
    stranger = replace(operator, broker=parse_broker_url(url(guarded, "application")))

    async def run():
        await deploy(stranger, bundles(), Targets(devices=("dev-9",)))

    with pytest.raises(BrokerError, match="did not say within 5 s what it retains") as caught:
        asyncio.run(run())
    assert "may this user write and read edgepack/v1/blob/sync/#" in caught.value.hint


@pytest.mark.parametrize(
    ("forbidden", "expected"),
    [
        ("blob/+/+", "does not keep the bundle"),
        ("+/in/desired", "does not keep the desired state of dev-9"),
    ],
)
def test_what_the_broker_silently_drops_is_noticed(tmp_path, keys, bundles, forbidden, expected):
    """A write that the broker's rules drop, with an acknowledgement, ends as an error."""
    allowed = {"blob/+/+", "blob/sync/+", "+/in/desired"} - {forbidden}
    rules = [f"topic read {DEFAULT_PREFIX}/#"]
    rules += [f"topic write {DEFAULT_PREFIX}/{topic}" for topic in sorted(allowed)]
    (tmp_path / "acl").write_text("\n".join(rules) + "\n")
    extra = f"allow_anonymous true\nacl_file {tmp_path}/acl"

    async def run(broker):
        operator = Operator(broker=parse_broker_url(broker.url), signer=keys.signer, wait_s=None)
        await deploy(operator, bundles(), Targets(devices=("dev-9",)))

    with (
        running(Mosquitto(tmp_path, extra=extra)) as broker,
        pytest.raises(BrokerError, match=expected) as caught,
    ):
        asyncio.run(run(broker))
    assert "does the broker retain messages?" in caught.value.hint
