"""What the broker retains about devices, and which of them a command means.

All of it comes through a broker that may forge it: it says where to send something, never whether
something is trusted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiomqtt

from edgepack.fleet.errors import BrokerError, TargetError
from edgepack.fleet.retained import read_retained
from edgepack.wire.errors import WireError
from edgepack.wire.messages import Info, Reported, parse_info, parse_reported
from edgepack.wire.topics import ONLINE, DeviceTopics, check_id, parse_out_topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Which devices a command is for; exactly one of the three is set.

    Attributes:
        devices: Device ids.
        tags: Tags that a device must have, all of them.
        everyone: Every device that has said hello.
    """

    devices: tuple[str, ...] = ()
    tags: Mapping[str, str] | None = None
    everyone: bool = False

    def __post_init__(self) -> None:
        if sum([bool(self.devices), bool(self.tags), self.everyone]) != 1:
            raise TargetError("name the devices with one of --device ID, --tag KEY=VALUE or --all")
        for device in self.devices:
            check_id(device, what="device id")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """What the broker retains about one device; None where there is nothing.

    Attributes:
        device: Its id.
        info: What it is.
        online: From its status.
        reported: What it runs.
        desired_envelope: The signed desired state, unverified.
    """

    device: str
    info: Info | None = None
    online: bool | None = None
    reported: Reported | None = None
    desired_envelope: bytes | None = None

    @property
    def seen(self) -> bool:
        """Whether the device was ever connected to this broker."""
        return self.info is not None or self.online is not None or self.reported is not None


async def find_devices(
    client: aiomqtt.Client, prefix: str, targets: Targets
) -> tuple[DeviceState, ...]:
    """Find the devices that a command means.

    Returns:
        Their states, sorted by id; a device named by id may never have been seen.

    Raises:
        TargetError: No device has the tags, or there is none at all.
    """
    if targets.devices:
        return await read_devices(client, prefix, targets.devices)
    tags = targets.tags or {}
    infos = await _infos(client, prefix)
    chosen = [
        device
        for device, info in infos.items()
        if all(info.tags.get(key) == value for key, value in tags.items())
    ]
    if not chosen:
        wanted = ", ".join(f"{key}={value}" for key, value in tags.items())
        what = f"no device has the tag {wanted}" if tags else "no device has been seen"
        raise TargetError(
            f"{what} under {prefix} ({len(infos)} devices known)",
            hint="name one with --device ID to deploy before it first connects",
        )
    return await read_devices(client, prefix, chosen)


async def read_devices(
    client: aiomqtt.Client, prefix: str, devices: Iterable[str]
) -> tuple[DeviceState, ...]:
    """Read what is retained about these devices, sorted by id.

    Raises:
        BrokerError: A document on the broker is malformed; the error names its topic.
    """
    topics = [DeviceTopics(prefix, device) for device in sorted(set(devices))]
    names = [name for one in topics for name in (one.info, one.status, one.reported, one.desired)]
    found = await read_retained(client, prefix, names)
    return tuple(_state(one, found) for one in topics)


async def read_all_desired(client: aiomqtt.Client, prefix: str) -> dict[str, bytes]:
    """Read the desired states of all devices, unverified, by topic."""
    return await read_retained(client, prefix, [f"{prefix}/+/in/desired"])


async def _infos(client: aiomqtt.Client, prefix: str) -> dict[str, Info]:
    found = await read_retained(client, prefix, [f"{prefix}/+/out/info"])
    infos = {}
    for topic, payload in found.items():
        try:
            infos[parse_out_topic(prefix, topic).device] = parse_info(payload)
        except WireError:
            continue  # a stranger's topic; it takes part in nothing
    return infos


def _state(topics: DeviceTopics, found: Mapping[str, bytes]) -> DeviceState:
    status, info, reported = (
        found.get(topic) for topic in (topics.status, topics.info, topics.reported)
    )
    try:
        return DeviceState(
            device=topics.device,
            info=None if info is None else parse_info(info),
            online=None if status is None else status == ONLINE,
            reported=None if reported is None else parse_reported(reported),
            desired_envelope=found.get(topics.desired),
        )
    except WireError as exc:
        raise BrokerError(f"what device {topics.device} reports cannot be read: {exc}") from exc
