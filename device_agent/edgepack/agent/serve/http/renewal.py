"""Files that are read anew when they change: the token, and the certificate with its key.

They are looked at when somebody comes, so that nothing waits for them and no signal has to be sent.
What cannot be used, such as a certificate whose key has not come yet, leaves what was there.
"""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

from edgepack.agent.errors import ConfigError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]
LOOK_S: Final = 1.0


class Renewed(Generic[T]):
    """What was read of some files, as they are now.

    Args:
        paths: The files.
        read: Reads them; raises ConfigError where they cannot be used.
        complain: Told why the newest cannot be used, and "" when it can be.
        look_s: Least time between two looks, in seconds.
        clock: Monotonic, in seconds.

    Raises:
        ConfigError: They cannot be used now.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        read: Callable[[], T],
        complain: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(map(Path, paths))
        self._read = read
        self._complain = complain
        self._look_s = look_s
        self._clock = clock
        self._looked_s = clock()
        self._stamp = self._look()
        self._value = read()

    def __call__(self) -> T:
        """What they hold; what they held last, where they cannot be used any more."""
        now_s = self._clock()
        if now_s - self._looked_s >= self._look_s:
            self._looked_s = now_s
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
        return self._value

    def _renew(self) -> None:
        try:
            self._value = self._read()
        except ConfigError as exc:
            logger.warning("http.not_renewed error=%s", exc)
            self._complain(f"{exc}; what was read before goes on")
        else:
            logger.info("http.renewed files=%s", ",".join(map(str, self._paths)))
            self._complain("")

    def _look(self) -> _Stamp:
        return tuple(map(_stamp, self._paths))


def renewing(contexts: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context for a listener, each handshake of which goes on with what `contexts` gives then."""

    def choose(handshake: ssl.SSLObject, _name: str | None, _own: ssl.SSLContext) -> None:
        handshake.context = contexts()

    listener = contexts()
    listener.sni_callback = choose  # called without a name, too
    return listener


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
