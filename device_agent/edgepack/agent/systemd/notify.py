"""systemd's notification protocol, sd_notify(3): lines in a datagram to a unix socket.

Nothing here is ever an error for the agent: where nobody listens, nobody is told.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

logger = logging.getLogger(__name__)

ADDRESS = "NOTIFY_SOCKET"
_INTERVAL = "WATCHDOG_USEC"
_PROCESS = "WATCHDOG_PID"


class Notifier:
    """Tells systemd about this process.

    Args:
        address: Path of the socket; one that begins with `@` is abstract.
        watchdog_s: Within how many seconds systemd wants each sign of life, or None.
    """

    def __init__(self, address: str, *, watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._failed = False

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> "Notifier | None":
        """What systemd put into the environment, taken out of it; None without systemd.

        Children must not speak for the agent: they do not inherit the address.
        """
        address = environment.pop(ADDRESS, "")
        interval = environment.pop(_INTERVAL, "")
        process = environment.pop(_PROCESS, "")
        if not address.startswith(("/", "@")):
            return None
        is_ours = process in ("", str(os.getpid()))
        has_watchdog = is_ours and interval.isdecimal() and int(interval) > 0
        return cls(address, watchdog_s=int(interval) / 1e6 if has_watchdog else None)

    def send(self, *lines: str) -> bool:
        """Send lines such as `READY=1`; whether they were taken. What fails is logged once."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.setblocking(False)
            try:
                door.sendto("\n".join(lines).encode(), self._address)
            except OSError as exc:
                if not self._failed:
                    logger.warning("systemd.unreachable error=%s", exc)
                self._failed = True
                return False
        self._failed = False
        return True
