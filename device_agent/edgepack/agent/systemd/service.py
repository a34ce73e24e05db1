"""What the agent tells systemd while it runs: ready, alive, stopping, and a line of status.

A sign of life comes from the event loop itself, and only while requests get done: an agent whose
engine hangs is restarted as one whose loop does. Loading and installing have limits of their own.
"""

import asyncio
import faulthandler
import logging
from collections.abc import Callable, MutableMapping

from edgepack.agent.systemd.notify import Notifier
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

STUCK_S = 600.0
_STATUS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the agent is doing.

    Attributes:
        running: Requests that wait or run.
        finished: Requests that ended since the start, however they ended.
    """

    running: int
    finished: int


class Progress:
    """Whether requests get done.

    Args:
        stuck_s: Seconds after which requests of which none ends are stuck.

    >>> progress = Progress(stuck_s=600)
    >>> progress.is_made(Work(running=2, finished=7), now_s=0)
    True
    >>> progress.is_made(Work(running=2, finished=7), now_s=601)
    False
    >>> progress.is_made(Work(running=2, finished=8), now_s=602)
    True
    """

    def __init__(self, *, stuck_s: float = STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._finished = -1
        self._since_s = 0.0

    def is_made(self, work: Work, *, now_s: float) -> bool:
        """Take a look; False when requests run and none has ended for too long."""
        if not work.running or work.finished != self._finished:
            self._finished, self._since_s = work.finished, now_s
            return True
        return now_s - self._since_s < self._stuck_s


class Service:
    """This agent, as systemd sees it.

    Args:
        notifier: Where to tell it.
        work: What the agent is doing.
        status: One line for `systemctl status`.
        progress: Decides whether the agent gets on.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        work: Callable[[], Work],
        status: Callable[[], str],
        progress: Progress | None = None,
    ) -> None:
        self._notifier = notifier
        self._work = work
        self._status = status
        self._progress = progress or Progress()
        self._is_ready = False
        self._told = ""

    async def run(self) -> None:
        """Say that the agent serves, then that it is alive, until cancelled."""
        loop = asyncio.get_running_loop()
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None:
            faulthandler.enable()  # systemd's SIGABRT leaves in the journal where it hung
        interval_s = _STATUS_S if watchdog_s is None else min(watchdog_s / 2, _STATUS_S)
        was_stuck = False
        while True:
            is_stuck = not self._progress.is_made(self._work(), now_s=loop.time())
            if is_stuck and not was_stuck:
                logger.error("agent.stuck running=%d seconds=%.0f", self._work().running, STUCK_S)
            was_stuck = is_stuck
            self._tell(is_alive=watchdog_s is not None and not is_stuck)
            await asyncio.sleep(interval_s)

    def stopping(self) -> None:
        """Say that the agent is about to stop."""
        self._notifier.send("STOPPING=1", "STATUS=stopping")

    def _tell(self, *, is_alive: bool) -> None:
        """Tell what is new; what systemd does not take (its queue is full) is told again."""
        status = self._status().replace("\n", " ")
        lines = [] if self._is_ready else ["READY=1"]
        if is_alive:
            lines.append("WATCHDOG=1")
        if status != self._told:
            lines.append(f"STATUS={status}")
        if lines and self._notifier.send(*lines):
            self._is_ready, self._told = True, status


def service_of(
    environment: MutableMapping[str, str], *, work: Callable[[], Work], status: Callable[[], str]
) -> Service | None:
    """The service that systemd's variables describe, taken out of them; None without systemd."""
    notifier = Notifier.of(environment)
    return Service(notifier, work=work, status=status) if notifier is not None else None
