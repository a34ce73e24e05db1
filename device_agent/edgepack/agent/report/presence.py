"""Whether this device is alone under its id, and whether it is the first one. Pure.

Every agent retains `out/info` with the random id of its installation and of its start, and listens
to its own topic. What is read there that it did not say itself, another one said: one that was here
before (the device was installed anew), or one that is here now (an id given twice, a copied disk).
"""

from edgepack.trust.values import dataclass
from edgepack.wire.messages import Info

_ANSWERS, _ANSWER_INTERVAL_S = 3, 60.0
_PROBES = 2


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

    A live word proves nothing yet: a broker may bring late what an earlier start of this device
    said. It is answered; a broker keeps the order, so that whoever is heard after our own answer
    came back is there. One that answers no more is gone.

    Args:
        instance: Random id of this installation.
        run: Random id of this start.
        greeted: Whether this installation has ever said what it is.
    """

    def __init__(self, instance: str, run: str, *, greeted: bool) -> None:
        self._instance = instance
        self._run = run
        self._greeted = greeted
        self._answered_s: list[float] = []
        self._met: dict[tuple[str, str], bool] = {}  # whether our own word came back since
        self._unanswered = 0

    def see(self, info: Info, *, retained: bool, now_s: float) -> Seen:
        """Judge one.

        Args:
            info: What came.
            retained: Whether it is from before this connection.
            now_s: A clock that never jumps, in seconds.
        """
        mine = info.instance == self._instance
        if mine and not retained and info.run == self._run:
            self._met = dict.fromkeys(self._met, True)
        if mine and (retained or info.run in ("", self._run)):
            return NOTHING  # our own, or from an earlier start of ours
        if retained and not self._greeted:
            return Seen(replaces=info.instance)
        who = f"installation {info.instance[:8]}" if not mine else "a copy of this installation"
        is_there = self._met.setdefault((info.instance, info.run), False)
        if retained:
            return Seen(conflict=f"{who} has used this device id since this one last did")
        self._unanswered = 0
        answer = self._may_answer(now_s)
        if not is_there:
            return Seen(answer=answer)
        return Seen(conflict=f"{who} uses this device id at the same time", answer=answer)

    def greeted(self) -> None:
        """This installation has said what it is."""
        self._greeted = True

    def probed(self) -> None:
        """We said our own again, to learn whether another one is still here."""
        self._unanswered += 1

    @property
    def is_alone_again(self) -> bool:
        """Whether nobody answered the last probes; then what was met is forgotten."""
        if self._unanswered < _PROBES:
            return False
        self._unanswered = 0
        self._met.clear()
        return True

    def _may_answer(self, now_s: float) -> bool:
        """Two that hear of each other must not talk each other to death."""
        recent = [at_s for at_s in self._answered_s if now_s - at_s < _ANSWER_INTERVAL_S]
        may = len(recent) < _ANSWERS
        self._answered_s = [*recent, now_s] if may else recent
        return may
