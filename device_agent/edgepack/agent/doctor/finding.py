"""What a check found."""

from enum import StrEnum

from edgepack.trust.values import dataclass


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # it works, but not as well as it should, or not for long
    FAIL = "fail"  # something does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor.

    Attributes:
        check: What was looked at, a stable word.
        level: How bad it is.
        text: What was found.
        mend: What to do about it; "" where nothing has to be done.
    """

    check: str
    level: Level
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.OK, text=text)


def warn(check: str, text: str, mend: str) -> Finding:
    """It works, but."""
    return Finding(check=check, level=Level.WARN, text=text, mend=mend)


def fail(check: str, text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(check=check, level=Level.FAIL, text=text, mend=mend)
