"""A release that is being tried says that it ran well, for when nobody watches it."""

import asyncio
import logging
import sys
from pathlib import Path

from edgepack.agent.errors import StoreError
from edgepack.agent.upgrade.health import EVIDENCE, EVIDENCE_AFTER_S

logger = logging.getLogger(__name__)


async def prove(state: Path, *, after_s: float = EVIDENCE_AFTER_S) -> None:
    """Write down, after a while, that this release runs; then wait until cancelled.

    Args:
        state: The state folder.
        after_s: That while, in seconds.
    """
    from edgepack.agent.disk import write_durably
    from edgepack.wire.installation import release_of

    await asyncio.sleep(after_s)
    release = release_of(Path(sys.prefix))
    try:
        await asyncio.to_thread(write_durably, state / EVIDENCE, release.encode())
        logger.info("upgrade.proven release=%s", release)
    except StoreError as exc:
        logger.warning("upgrade.unproven error=%s", exc)
    await asyncio.Event().wait()
