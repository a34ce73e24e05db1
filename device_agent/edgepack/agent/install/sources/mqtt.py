"""`mqtt:`: the blobs that lie on the broker as retained chunks, pulled with a window.

The window adapts to the line: it halves when a chunk does not come in time, and grows again. What
came out of order is held, so that nothing is asked for twice.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.landing import Arrival, Landing
from edgepack.agent.install.sources.source import Described
from edgepack.wire.desired import BlobRef, DesiredModel
from edgepack.wire.throttle import Throttle
from edgepack.wire.topics import CHUNK_BYTES, blob_topic, chunk_count

_WINDOW = 16
_CHUNK_TIMEOUT_S = 30.0
_LAST_TIMEOUT_S = 60.0  # for one chunk alone: about 1 kB/s


class Retained(Protocol):
    """What gives retained messages: the link."""

    async def retained(self, topics: list[str], *, timeout_s: float) -> dict[str, bytes]:
        """Those retained messages of some topics that come, until none came for `timeout_s`."""


@dataclass(slots=True)
class _Coming:
    """A blob of which chunks are on their way."""

    arrival: Arrival
    held: dict[int, bytes] = field(default_factory=dict)

    def take(self) -> bool:
        """Write what is next in order; whether the blob is complete."""
        while (chunk := self.held.pop(self.arrival.offset // CHUNK_BYTES, None)) is not None:
            self.arrival.write(chunk)
            if not self.arrival.left_bytes:
                return True
        return False


class MqttSource:
    """A bundle on the broker.

    Args:
        link: Gives retained messages.
        prefix: MQTT topic prefix.
        model: The wanted bundle.
        throttle: A rate that transfers share, or None.
    """

    def __init__(
        self, link: Retained, prefix: str, model: DesiredModel, throttle: Throttle | None
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._model = model
        self._throttle = throttle
        self._window = self._widest = _WINDOW
        if throttle is not None:  # a window must not take longer than a chunk may
            self._widest = min(_WINDOW, max(1, int(throttle.bytes_s // CHUNK_BYTES)))
            self._window = self._widest

    async def describe(self, landing: Landing) -> Described:
        """The desired state says all there is to know."""
        del landing
        manifest = BlobRef(digest=self._model.digest, size_bytes=self._model.manifest_size_bytes)
        return Described(manifest=manifest, signatures=self._model.signatures)

    async def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Pull the blobs' chunks."""
        coming: dict[str, _Coming] = {}
        waiting = deque(refs)
        asked: deque[tuple[BlobRef, int]] = deque()
        try:
            while True:
                while len(asked) < self._window and waiting:
                    ref = waiting.popleft()
                    asked.extend(await self._begin(ref, landing, coming))
                if not asked:
                    return
                window = [asked.popleft() for _ in range(min(self._window, len(asked)))]
                came = await self._ask(window)
                missing = []
                for ref, index in window:
                    data = came.get(blob_topic(self._prefix, ref.digest, index))
                    if data is None:
                        missing.append((ref, index))
                    else:
                        coming[ref.digest].held[index] = checked(data, ref, index)
                asked.extendleft(reversed(missing))
                for digest in list(coming):
                    if coming[digest].take():
                        coming.pop(digest).arrival.finish()
        finally:
            for one in coming.values():
                one.arrival.close()

    def close(self) -> None:
        """Nothing goes on when nobody asks."""

    async def _begin(
        self, ref: BlobRef, landing: Landing, coming: dict[str, _Coming]
    ) -> Iterable[tuple[BlobRef, int]]:
        # on a thread: what is here already is hashed
        arrival = await asyncio.to_thread(landing.arrive, ref, unit_bytes=CHUNK_BYTES)
        if not arrival.left_bytes:
            arrival.finish()
            return ()
        coming[ref.digest] = _Coming(arrival)
        first = arrival.offset // CHUNK_BYTES
        return ((ref, index) for index in range(first, chunk_count(ref.size_bytes)))

    async def _ask(self, chunks: list[tuple[BlobRef, int]]) -> dict[str, bytes]:
        topics = [blob_topic(self._prefix, ref.digest, index) for ref, index in chunks]
        timeout_s = _CHUNK_TIMEOUT_S if self._window > 1 else _LAST_TIMEOUT_S
        came = await self._link.retained(topics, timeout_s=timeout_s)
        if not came and self._window == 1:
            raise FetchError(f"broker gave no blob chunk in {timeout_s:.0f} s")
        if len(came) < len(topics):
            self._window = max(1, self._window // (2 if came else 4))
        else:
            self._window = min(self._widest, 2 * self._window)
        if self._throttle is not None:
            await asyncio.sleep(self._throttle.delay_s(sum(map(len, came.values()))))
        return came


def checked(chunk: bytes, ref: BlobRef, index: int) -> bytes:
    """Give a chunk back if it has the right size.

    Raises:
        FetchError: It was cleared.
        RejectedError: It has another size.
    """
    expected = min(CHUNK_BYTES, ref.size_bytes - index * CHUNK_BYTES)
    if not chunk:  # cleared while it was fetched
        raise FetchError(f"broker no longer has chunk {index} of {ref.digest}")
    if len(chunk) != expected:
        raise RejectedError(
            "bundle_invalid",
            f"chunk {index} of {ref.digest} must be {expected} bytes, got {len(chunk)}",
        )
    return chunk
