"""Bundles on the broker: blobs as retained chunks, put there, checked and cleared.

What is there already is read and compared, not assumed: a chunk that is missing or differs (an
upload that broke off, a broker that lost some) is sent again, and only that one.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import aiomqtt

from edgepack.bundle import Descriptor
from edgepack.fleet.errors import BrokerError
from edgepack.fleet.retained import read_retained
from edgepack.wire.topics import CHUNK_BYTES, blob_topic, chunk_count

# 1 MB under way: enough to fill a fast link, little enough to be acknowledged on a slow one.
WINDOW_CHUNKS = 16
PUBLISH_TIMEOUT_S = 60.0

ReadBlob = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress:
    """How far an upload is, in bytes; `sent_bytes` is what the broker did not have yet."""

    done_bytes: int
    total_bytes: int
    sent_bytes: int


async def publish_blobs(
    client: aiomqtt.Client,
    prefix: str,
    blobs: Sequence[Descriptor],
    read: ReadBlob,
    *,
    on_progress: Callable[[UploadProgress], None] = lambda _: None,
) -> UploadProgress:
    """Put blobs on the broker as retained chunks.

    Args:
        client: A connection that nobody else reads from.
        prefix: Topic prefix.
        blobs: What to put there.
        read: Gives a blob's bytes by its digest.
        on_progress: Called after every window of chunks.

    Returns:
        The final progress.

    Raises:
        BrokerError: The broker does not keep them.
    """
    total = sum(blob.size_bytes for blob in blobs)
    progress = UploadProgress(done_bytes=0, total_bytes=total, sent_bytes=0)
    chunks = _chunks(prefix, blobs, read)
    while window := dict(islice(chunks, WINDOW_CHUNKS)):
        there = await read_retained(client, prefix, list(window))
        missing = {topic: data for topic, data in window.items() if there.get(topic) != data}
        await _publish(client, missing)
        progress = UploadProgress(
            done_bytes=progress.done_bytes + sum(map(len, window.values())),
            total_bytes=total,
            sent_bytes=progress.sent_bytes + sum(map(len, missing.values())),
        )
        on_progress(progress)
    await _check_kept(client, prefix, blobs)
    return progress


async def read_blob(client: aiomqtt.Client, prefix: str, blob: Descriptor) -> bytes | None:
    """Read a blob from the broker; None when a chunk is missing. NOT verified."""
    topics = [blob_topic(prefix, blob.digest, index) for index in _indices(blob)]
    chunks = await read_retained(client, prefix, topics)
    return b"".join(chunks[topic] for topic in topics) if len(chunks) == len(topics) else None


async def clear_blobs(client: aiomqtt.Client, prefix: str, blobs: Iterable[Descriptor]) -> None:
    """Take blobs off the broker."""
    for blob in blobs:
        topics = [blob_topic(prefix, blob.digest, index) for index in _indices(blob)]
        await _publish(client, dict.fromkeys(topics, b""))


def _chunks(
    prefix: str, blobs: Sequence[Descriptor], read: ReadBlob
) -> Iterator[tuple[str, bytes]]:
    for blob in blobs:
        data = read(blob.digest)
        for index in _indices(blob):
            start = index * CHUNK_BYTES
            yield blob_topic(prefix, blob.digest, index), data[start : start + CHUNK_BYTES]


async def _publish(client: aiomqtt.Client, messages: dict[str, bytes]) -> None:
    gate = asyncio.Semaphore(WINDOW_CHUNKS)

    async def publish(topic: str, payload: bytes) -> None:
        async with gate:
            await client.publish(topic, payload, qos=1, retain=True, timeout=PUBLISH_TIMEOUT_S)

    await asyncio.gather(*(publish(topic, payload) for topic, payload in messages.items()))


async def _check_kept(client: aiomqtt.Client, prefix: str, blobs: Sequence[Descriptor]) -> None:
    """Look for the first chunk of each: a broker whose rules forbid writing says nothing."""
    topics = [blob_topic(prefix, blob.digest, 0) for blob in blobs]
    missing = set(topics) - set(await read_retained(client, prefix, topics))
    if missing:
        raise BrokerError(
            f"the broker does not keep the bundle: {len(missing)} of {len(topics)} blobs are gone",
            hint=f"may this user write {prefix}/blob/#, and does the broker retain messages?",
        )


def _indices(blob: Descriptor) -> range:
    return range(chunk_count(blob.size_bytes))
