"""Whether this device is alone under its id, and whether it is the first one. Pure.

Every agent retains `out/info` with the random id of its installation and of its start, and listens
to its own topic. What is read there that it did not say itself, another one said: one that was here
before (the device was installed anew), or one that is here now (an id given twice, a copied disk).
"""

from dataclasses import dataclass

from edgepack.wire.messages import Info

_ANSWER_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What follows from an `out/info`.

    Attributes:
        replaces: The installation that was here before this one ever came, or "".
        conflict: One line about another one that uses this id, or "".
        answer: Whether to say our own again, so that the other one learns of us.
    """

    replaces: str = ""
    conflict: str = ""
    answer: bool = False


NOTHING = Seen()


class Presence:
    """Judges what comes on this device's own `out/info`.

    Args:
        instance: Random id of this installation.
        run: Random id of this start.
        greeted: Whether this installation has ever said what it is.
    """

    def __init__(self, instance: str, run: str, *, greeted: bool) -> None:
        self._instance = instance
        self._run = run
        self._greeted = greeted
        self._answered_s: float | None = None

    def see(self, info: Info, *, retained: bool, now_s: float) -> Seen:
        """Judge one.

        Args:
            info: What came.
            retained: Whether it is from before this connection.
            now_s: A clock that never jumps, in seconds.
        """
        mine = info.instance == self._instance
        if mine and (retained or info.run in ("", self._run)):
            return NOTHING  # our own, or from an earlier start of ours
        who = f"installation {info.instance[:8]}" if not mine else "a copy of this installation"
        if retained and not self._greeted:
            return Seen(replaces=info.instance)
        if retained:
            return Seen(conflict=f"{who} has used this device id since this one last did")
        answer = self._answered_s is None or now_s - self._answered_s >= _ANSWER_INTERVAL_S
        if answer:
            self._answered_s = now_s
        return Seen(conflict=f"{who} uses this device id at the same time", answer=answer)

    def greeted(self) -> None:
        """This installation has said what it is."""
        self._greeted = True
