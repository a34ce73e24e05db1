"""Reading a device's signed history from a broker; what it proves is `edgepack.fleet.audit`."""

from dataclasses import dataclass

from edgepack.fleet.connection import BrokerUrl, connect
from edgepack.fleet.errors import TargetError
from edgepack.fleet.retained import read_retained
from edgepack.trust import EVENT_PAYLOAD_TYPE, dsse
from edgepack.trust.errors import DocumentError
from edgepack.wire.audit import parse_event
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_info, parse_reported
from edgepack.wire.topics import DeviceTopics


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedHistory:
    """What the broker has of a device's history.

    Attributes:
        lines: Signed events by installation and number, unverified.
        key: The public key in hex that `out/info` names, unverified, or "".
        events: How many the device says that it has, unverified; 0 if it does not.
    """

    lines: tuple[bytes, ...]
    key: str
    events: int


async def read_history(broker: BrokerUrl, prefix: str, device: str) -> RetainedHistory:
    """Read the events of a device that the broker retains.

    Raises:
        TargetError: There are none.
        BrokerError: The broker cannot be reached.
    """
    topics = DeviceTopics(prefix, device)
    async with connect(broker) as client:
        found = await read_retained(
            client, prefix, [topics.audit("+"), topics.info, topics.reported]
        )
    info, reported = found.pop(topics.info, None), found.pop(topics.reported, None)
    if not found:
        raise TargetError(
            f"the broker retains no signed event of device {device} under {prefix}",
            hint="on the device, `edgepack-agent audit` writes its history",
        )
    try:
        key = parse_info(info).key if info is not None else ""
        events = parse_reported(reported).events if reported is not None else 0
    except WireError:
        key, events = "", 0
    lines = tuple(sorted(found.values(), key=_place))
    return RetainedHistory(lines=lines, key=key, events=events)


def _place(line: bytes) -> tuple[str, int]:
    try:
        event = parse_event(dsse.parse(line, EVENT_PAYLOAD_TYPE).payload)
    except (DocumentError, WireError):
        return "", 0  # told of by whoever proves
    return event.instance, event.number
