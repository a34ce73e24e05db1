"""Putting desired states on the broker, and making sure that they are what stands there."""

from collections.abc import Sequence

import aiomqtt

from edgepack.fleet.desired_state import Plan
from edgepack.fleet.errors import BrokerError, OvertakenError
from edgepack.fleet.retained import read_retained
from edgepack.wire.topics import DeviceTopics


async def write_desired(client: aiomqtt.Client, prefix: str, plans: Sequence[Plan]) -> None:
    """Publish desired states and read them back.

    Raises:
        OvertakenError: Somebody else's stands there: whoever wrote last wins, and it was not us.
        BrokerError: Nothing stands there: the broker did not keep it.
    """
    topics = {plan.device: DeviceTopics(prefix, plan.device).desired for plan in plans}
    for plan in plans:
        await client.publish(topics[plan.device], plan.envelope, qos=1, retain=True)
    found = await read_retained(client, prefix, list(topics.values()))
    gone = [plan.device for plan in plans if topics[plan.device] not in found]
    if gone:
        raise BrokerError(
            f"the broker does not keep the desired state of {', '.join(gone)}",
            hint=f"may this user write {prefix}/+/in/desired, and does the broker retain messages?",
        )
    overtaken = [plan.device for plan in plans if found[topics[plan.device]] != plan.envelope]
    if overtaken:
        raise OvertakenError(
            f"somebody else wrote the desired state of {', '.join(overtaken)} at the same time",
            hint="run the command again; it merges with what stands there now",
        )
