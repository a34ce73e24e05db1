"""Reading what a broker retains, and knowing when all of it has come.

MQTT has no end mark after the retained messages of a subscription. But a broker answers the packets
of one client in order, so a message that this client sends itself after SUBSCRIBE arrives behind
them. Brokers that look retained messages up in the background may be late; for them a short quiet
time follows.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from itertools import islice

import aiomqtt

from edgepack.fleet.errors import BrokerError

# A broker holds back only so many messages for one client (mosquitto: 1000) and drops the rest.
WINDOW_TOPICS = 64
ANSWER_TIMEOUT_S = 5.0
QUIET_S = 0.05


async def read_retained(
    client: aiomqtt.Client,
    prefix: str,
    filters: Sequence[str],
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    strict: bool = True,
) -> dict[str, bytes]:
    """Read the retained messages of some topics; other messages that arrive meanwhile are lost.

    Args:
        client: A connection that nobody else reads from.
        prefix: Topic prefix; the message to oneself goes to `<prefix>/blob/sync/…`.
        filters: Topics or filters.
        timeout_s: How long to wait for the message to oneself.
        strict: False takes what has come by then: for showing, never for deciding, because a
            topic that is missing may only be late.

    Returns:
        Topic → payload, without topics that are empty.

    Raises:
        BrokerError: The message to oneself does not come back.
    """
    found: dict[str, bytes] = {}
    for window in _windows(filters, WINDOW_TOPICS):
        sync = f"{prefix}/blob/sync/{secrets.token_hex(8)}"
        topics = [*window, sync]
        await client.subscribe([(topic, 1) for topic in topics])
        await client.publish(sync, b"sync", qos=1)
        part, complete = await _collect(client, window, sync, timeout_s)
        if strict and not complete:
            raise BrokerError(
                f"the broker did not say within {timeout_s:g} s what it retains",
                hint=f"may this user write and read {prefix}/blob/sync/#?",
            )
        found |= part
        await client.unsubscribe(topics)
    return {topic: payload for topic, payload in found.items() if payload}


async def _collect(
    client: aiomqtt.Client, window: list[str], sync: str, timeout_s: float
) -> tuple[dict[str, bytes], bool]:
    """What came, and whether that is all."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    found: dict[str, bytes] = {}
    synced = False
    messages = aiter(client.messages)
    while found.keys() != set(window):  # a filter is never found: it waits for the end
        try:
            async with asyncio.timeout_at(deadline):
                message = await anext(messages)
        except TimeoutError:
            return found, synced
        if message.topic.value == sync:
            synced = True
            deadline = loop.time() + QUIET_S
        elif any(message.topic.matches(wanted) for wanted in window):  # else it is an old one
            found[message.topic.value] = bytes_of(message)
    return found, True


def bytes_of(message: aiomqtt.Message) -> bytes:
    """The payload of a message; aiomqtt hands over bytes for everything that came from a broker."""
    payload = message.payload
    return bytes(payload) if isinstance(payload, bytes | bytearray) else b""


def _windows(items: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while window := list(islice(rest, size)):
        yield window
