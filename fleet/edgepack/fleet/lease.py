"""Asking devices to tell their figures often while somebody looks.

A device forgets it by itself: whoever looks asks again, and nothing has to be taken back.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import aiomqtt

from edgepack.wire.commands import WATCH, render_watch
from edgepack.wire.topics import DeviceTopics

_LEASE_S = 60.0
_LOOK_S = 0.5


@asynccontextmanager
async def leases(
    client: aiomqtt.Client,
    prefix: str,
    online: Callable[[], Iterable[str]],
    every_s: float | None,
) -> AsyncIterator[None]:
    """Ask every device that is there, again before it forgets, as long as the body runs.

    Args:
        client: Connected.
        prefix: Topic prefix.
        online: Gives the ids of the devices that are there.
        every_s: Seconds between figures; None: nobody is asked.
    """
    if every_s is None:
        yield
        return
    asking = asyncio.create_task(_ask(client, prefix, online, every_s))
    try:
        yield
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError, aiomqtt.MqttError):
            await asking


async def _ask(
    client: aiomqtt.Client, prefix: str, online: Callable[[], Iterable[str]], every_s: float
) -> None:
    payload = render_watch(seconds=_LEASE_S, interval_s=every_s)
    asked_s: dict[str, float] = {}
    while True:
        now_s = time.monotonic()
        for device in online():
            if now_s - asked_s.get(device, -_LEASE_S) >= _LEASE_S / 2:
                asked_s[device] = now_s
                # QoS 0: a device that is away is not to hear of it later
                await client.publish(DeviceTopics(prefix, device).command(WATCH), payload, qos=0)
        await asyncio.sleep(_LOOK_S)
