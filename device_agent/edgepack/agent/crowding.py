"""Whether another client probably has this one's id. Pure.

A broker ends the older of two connections with one id: both would fight without end. (MQTT 5 would
say so, but paho loses the reason of a short DISCONNECT.) After some sessions that ended soon, this
agent has a client id of its own; a mistake does no harm. Who the other one is, `out/info` tells.
"""

_SHORT_SESSION_S = 60.0
_SHORT_SESSIONS = 3  # in a row; a broker that is restarted ends one


class Crowding:
    """Counts sessions that ended soon."""

    def __init__(self) -> None:
        self._short_sessions = 0

    def ended(self, after_s: float) -> bool:
        """Whether it is crowded, after a session that has lasted so many seconds."""
        short = after_s < _SHORT_SESSION_S
        self._short_sessions = self._short_sessions + 1 if short else 0
        if self._short_sessions < _SHORT_SESSIONS:
            return False
        self._short_sessions = 0
        return True
