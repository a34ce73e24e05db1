"""MQTT topic filters: which topics they match, and what their wildcards stand for."""

from collections.abc import Iterable
from typing import Final

from edgepack.wire.errors import WireError

_MAX_BYTES: Final = 1024


def check_filter(text: str) -> str:
    """Return a topic filter.

    Raises:
        WireError: `+` or `#` does not stand alone in a level, `#` is not the last, or it is empty
            or too long.
    """
    levels = text.split("/")
    wrong = (
        not text
        or "\0" in text
        or len(text.encode()) > _MAX_BYTES
        or any(sign in level and level != sign for level in levels for sign in "+#")
        or "#" in levels[:-1]
    )
    if wrong:
        raise WireError(f"topic filter must be like a/+/b or a/#, got {text[:80]!r}")
    return text


def check_topic(text: str) -> str:
    """Return a topic that may be published to.

    Raises:
        WireError: It is empty, too long, or has wildcards.
    """
    check_filter(text)
    if "+" in text or "#" in text or text.startswith("$"):
        raise WireError(f"topic must have no wildcards and not begin with $, got {text[:80]!r}")
    return text


def wildcards(text: str) -> tuple[str, ...]:
    """The wildcards of a filter, in their order: ("+", "#")."""
    return tuple(level for level in text.split("/") if level in ("+", "#"))


def match(text: str, topic: str) -> tuple[str, ...] | None:
    """What the wildcards of a filter stand for in a topic, or None where it does not match.

    A wildcard at the beginning does not match topics that begin with `$` (MQTT 5, 4.7.2).

    >>> match("plant/+/temp/#", "plant/press-7/temp/a/b")
    ('press-7', 'a/b')
    """
    wanted, levels = text.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return None
    stands_for: list[str] = []
    for place, level in enumerate(wanted):
        if level == "#":
            return (*stands_for, "/".join(levels[place:]))
        if place >= len(levels):
            return None
        if level == "+":
            stands_for.append(levels[place])
        elif level != levels[place]:
            return None
    return tuple(stands_for) if len(levels) == len(wanted) else None


def fewest(filters: Iterable[str]) -> list[str]:
    """The filters without those that another one covers, else a broker may send messages twice."""
    kept: list[str] = []
    for text in dict.fromkeys(filters):
        if not any(_covers(other, text) for other in kept):
            kept = [other for other in kept if not _covers(text, other)]
            kept.append(text)
    return kept


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both filters match.

    >>> overlap("+/press-7/#", "plant/+/temp"), overlap("plant/#", "plant"), overlap("a/+", "+/b/c")
    (True, True, False)
    """
    if "$" in {one[:1], other[:1]} and {one[:1], other[:1]} & {"+", "#"}:
        return False
    ours, theirs = one.split("/"), other.split("/")
    for place in range(max(len(ours), len(theirs))):
        here = [levels[place] if place < len(levels) else None for levels in (ours, theirs)]
        if "#" in here:
            return True
        if None in here or ("+" not in here and here[0] != here[1]):
            return False
    return True


def _covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide`."""
    ours, theirs = wide.split("/"), narrow.split("/")
    for place, level in enumerate(ours):
        if level == "#":
            return True
        if place >= len(theirs) or theirs[place] == "#":
            return False
        if level not in ("+", theirs[place]):
            return False
    return len(ours) == len(theirs)
