"""Messages that arrived and were not looked at yet: bounded by what they weigh.

A bound on their number alone would let whoever may publish requests fill a small device's memory.
"""

import asyncio

import aiomqtt

MAX_MESSAGES = 10_000
MAX_BYTES = 16 * 1024 * 1024


class Backlog(asyncio.Queue[aiomqtt.Message]):
    """A queue that is also full when its payloads are larger than `MAX_BYTES` together."""

    _waiting_bytes = 0

    def full(self) -> bool:
        """Whether the next message is dropped."""
        return self._waiting_bytes >= MAX_BYTES or super().full()

    def _put(self, item: aiomqtt.Message) -> None:
        self._waiting_bytes += _size(item)
        super()._put(item)

    def _get(self) -> aiomqtt.Message:
        item = super()._get()
        self._waiting_bytes -= _size(item)
        return item


def _size(message: aiomqtt.Message) -> int:
    return len(message.payload) if isinstance(message.payload, bytes | str) else 8
