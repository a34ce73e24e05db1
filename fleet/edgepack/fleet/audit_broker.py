"""Reading a device's signed history from a broker; what it proves is `edgepack.fleet.audit`."""

from dataclasses import dataclass

from edgepack.fleet.connection import BrokerUrl, connect
from edgepack.fleet.errors import TargetError
from edgepack.fleet.retained import read_retained
from edgepack.trust import EVENT_PAYLOAD_TYPE, dsse
from edgepack.trust.errors import DocumentError
from edgepack.wire.audit import parse_event
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_info
from edgepack.wire.topics import DeviceTopics


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedHistory:
    """What the broker has of a device's history.

    Attributes:
        lines: Signed events by installation and number, unverified.
        key: The public key in hex that `out/info` names, unverified, or "".
    """

    lines: tuple[bytes, ...]
    key: str


async def read_history(broker: BrokerUrl, prefix: str, device: str) -> RetainedHistory:
    """Read the events of a device that the broker retains.

    Raises:
        TargetError: There are none.
        BrokerError: The broker cannot be reached.
    """
    topics = DeviceTopics(prefix, device)
    async with connect(broker) as client:
        found = await read_retained(client, prefix, [topics.audit("+"), topics.info])
    info = found.pop(topics.info, None)
    if not found:
        raise TargetError(
            f"the broker retains no signed event of device {device} under {prefix}",
            hint="on the device, `edgepack-agent audit` writes its history",
        )
    try:
        key = parse_info(info).key if info is not None else ""
    except WireError:
        key = ""
    return RetainedHistory(lines=tuple(sorted(found.values(), key=_place)), key=key)


def _place(line: bytes) -> tuple[str, int]:
    try:
        event = parse_event(dsse.parse(line, EVENT_PAYLOAD_TYPE).payload)
    except (DocumentError, WireError):
        return "", 0  # told of by whoever proves
    return event.instance, event.number
