"""Sends what waits in the outbox: what happens now at once, what waited in order and paced.

Some reports are under way at a time, so that a broker that is far away does not make them wait for
one another; MQTT keeps their order.
"""

import asyncio
import logging
from collections import deque

from edgepack.agent.config import OutboxConfig
from edgepack.agent.errors import FetchError, StoreError
from edgepack.agent.link import Link
from edgepack.agent.report.outbox import Outbox, Waiting, with_member
from edgepack.agent.report.pace import Pace

logger = logging.getLogger(__name__)

_WINDOW = 16  # under way at a time
_BACKLOG_WINDOW = 12  # of them, of what waited
_READ_AHEAD = 50
_RETRY_S = 1.0
_LONG_RETRY_S = 30.0


class Sender:
    """Empties the outbox.

    Args:
        outbox: What waits.
        config: `[outbox]`.
        link: The connection.
    """

    def __init__(self, outbox: Outbox, config: OutboxConfig, link: Link) -> None:
        self._outbox = outbox
        self._link = link
        self._flush_s = config.flush_s
        self._pace = Pace(config.replay_per_s, config.replay_kbps * 1000 / 8)
        self._wake = asyncio.Event()
        self._dirty = asyncio.Event()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._of_backlog = 0
        self._next: deque[Waiting] = deque()
        self._resume_s = 0.0

    def filled(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()
        self._dirty.set()

    def connected(self) -> None:
        """A new connection: everything that is there has waited."""
        self._outbox.disconnected()
        self._next.clear()
        self._resume_s = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_sending())
                tasks.create_task(self._keep_flushed())
        finally:
            for task in self._under_way.values():
                task.cancel()

    async def _keep_sending(self) -> None:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        while True:
            await self._wake.wait()
            await self._link.connected.wait()
            self._wake.clear()
            delay_s = self._resume_s - loop.time()
            if delay_s <= 0:
                delay_s = self._send_due()
            if timer is not None:
                timer.cancel()
            timer = loop.call_later(delay_s, self._wake.set) if delay_s > 0 else None

    async def _keep_flushed(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(self._flush_s)
            self._dirty.clear()
            self._outbox.flush()

    def _send_due(self) -> float:
        """Begin to send what may be sent now; seconds until more may be, or 0: when it is told."""
        for report in self._outbox.live(self._under_way):
            if len(self._under_way) >= _WINDOW:
                return 0.0
            self._begin(report)
        while self._of_backlog < _BACKLOG_WINDOW and len(self._under_way) < _WINDOW:
            if not self._next:
                self._read_ahead()
            if not self._next:
                break
            delay_s = self._pace.delay_s()
            if delay_s > 0:
                return delay_s
            report = self._next.popleft()
            self._pace.take(report.size_bytes)
            self._begin(report, has_waited=True)
        return 0.0

    def _read_ahead(self) -> None:
        try:
            self._next.extend(self._outbox.backlog(_READ_AHEAD, self._under_way))
        except StoreError as exc:
            logger.warning("outbox.unusable error=%s", exc)
            self._pause(_LONG_RETRY_S)

    def _begin(self, report: Waiting, *, has_waited: bool = False) -> None:
        self._of_backlog += has_waited
        task = asyncio.create_task(self._send(report, has_waited=has_waited))
        self._under_way[report.number] = task

    async def _send(self, report: Waiting, *, has_waited: bool) -> None:
        payload = report.payload
        if has_waited:
            payload = with_member(payload, b'"is_historical":1')
        try:
            await self._link.publish(report.topic, payload)
        except FetchError:
            self._pause(_RETRY_S)
        except Exception:  # one report must not keep the others from being sent
            logger.exception("report.defect topic=%s", report.topic)
            self._pause(_LONG_RETRY_S)
        else:
            self._outbox.done(report)
            self._dirty.set()
        finally:
            del self._under_way[report.number]
            self._of_backlog -= has_waited
            self._wake.set()

    def _pause(self, delay_s: float) -> None:
        """Read what waits anew, and not at once."""
        self._next.clear()
        self._resume_s = asyncio.get_running_loop().time() + delay_s
        self._wake.set()
