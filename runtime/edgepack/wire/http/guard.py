"""What keeps a server from holding a client: bounds on time, on a head's size, and on the rate."""

import contextlib
import socket
import threading
import time

from edgepack.wire.errors import TransferError
from edgepack.wire.http.settings import HttpSettings
from edgepack.wire.throttle import Throttle

_MAX_HEAD_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
_LEAST_PIECE_BYTES = 1024


class Guard:
    """Watches every byte that a client receives.

    Only the time spent waiting for the server counts: a slow disk does not stall a download.

    Args:
        settings: When a server counts as stalled.
        throttle: The rate that transfers share, or None.
    """

    def __init__(self, settings: HttpSettings, throttle: Throttle | None) -> None:
        self._stall_s = settings.stall_s
        self._stall_bytes = float(settings.stall_bytes)
        if throttle is not None:  # who is allowed little may get little
            self._stall_bytes = min(self._stall_bytes, throttle.bytes_s * settings.stall_s / 4)
        self._throttle = throttle
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._waited_s = 0.0
        self._window_bytes = 0
        self._head_left: int | None = None
        self.received_bytes = 0

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for the transfer any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End whatever goes on, from any thread."""
        self._stopped.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, connection: socket.socket | None) -> None:
        """Remember the connection that `stop` breaks.

        Raises:
            TransferError: It was stopped already.
        """
        with self._lock:
            self._socket = connection
        self.check()

    def check(self) -> None:
        """Raises TransferError if it was stopped."""
        if self._stopped.is_set():
            raise TransferError("transfer was given up")

    def begin_response(self) -> None:
        """A new answer: its head comes first."""
        self._waited_s, self._window_bytes = 0.0, 0
        self._head_left = _MAX_HEAD_BYTES

    def end_head(self) -> None:
        """The head is complete."""
        self._head_left = None

    def allowed_s(self) -> float:
        """How long the next read may wait, in seconds."""
        self.check()
        return max(0.01, self._stall_s - self._waited_s)

    @property
    def piece_bytes(self) -> int:
        """The largest read: at a low rate a little often, lest the server sees a long silence."""
        if self._throttle is None:
            return _PIECE_BYTES
        return min(_PIECE_BYTES, max(_LEAST_PIECE_BYTES, int(self._throttle.bytes_s / 4)))

    def received(self, size_bytes: int, waited_s: float) -> None:
        """Account for one read.

        Raises:
            TransferError: The server is too slow, or its head does not end.
        """
        self.received_bytes += size_bytes
        self._waited_s += waited_s
        self._window_bytes += size_bytes
        if self._head_left is not None:
            self._head_left -= size_bytes
            if self._head_left < 0:
                raise TransferError(f"answer's head must be at most {_MAX_HEAD_BYTES} bytes")
        if self._window_bytes >= self._stall_bytes:
            self._waited_s, self._window_bytes = 0.0, 0
        elif self._waited_s >= self._stall_s:
            self.stalled()
        if self._throttle is not None:
            self._stopped.wait(self._throttle.delay_s(size_bytes))
            self.check()

    def stalled(self) -> None:
        """Raises TransferError: too little came."""
        self.check()
        raise TransferError(
            f"server stalled: {self._window_bytes} bytes in {self._stall_s:g} s, "
            f"at least {self._stall_bytes:.0f} are expected"
        )


def now_s() -> float:
    """Monotonic seconds."""
    return time.monotonic()
