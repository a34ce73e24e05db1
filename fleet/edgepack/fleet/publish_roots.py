"""Putting versions of root.json on the broker, where every device finds the next after its own."""

from collections.abc import Sequence

import aiomqtt

from edgepack.fleet.errors import BrokerError
from edgepack.fleet.retained import read_retained
from edgepack.trust import Root
from edgepack.wire.topics import root_topic


async def publish_roots(
    client: aiomqtt.Client, prefix: str, roots: Sequence[Root]
) -> tuple[int, ...]:
    """Publish roots, and make sure that the broker keeps them.

    The newest comes last, so that a device never waits for one in between.

    Args:
        client: A connection that nobody else reads from.
        prefix: Topic prefix.
        roots: Some versions, oldest first.

    Returns:
        The versions that the broker did not have.

    Raises:
        BrokerError: The broker does not keep them.
    """
    wanted = {root_topic(prefix, root.version): root for root in roots}
    there = await read_retained(client, prefix, list(wanted))
    missing = {topic: root for topic, root in wanted.items() if there.get(topic) != root.data}
    for topic, root in missing.items():
        await client.publish(topic, root.data, qos=1, retain=True)
    kept = await read_retained(client, prefix, list(missing)) if missing else {}
    gone = [root.version for topic, root in missing.items() if kept.get(topic) != root.data]
    if gone:
        raise BrokerError(
            f"the broker does not keep root.json version {', '.join(map(str, gone))}",
            hint=f"may this user write {prefix}/blob/#, and does the broker retain messages?",
        )
    return tuple(root.version for root in missing.values())
