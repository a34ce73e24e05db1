"""What came of one host."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOutcome:
    """What came of one host.

    Attributes:
        host: As it was typed.
        device: The device's id; None where it is not known.
        result: `installed`, `upgraded`, `reconfigured`, `unchanged`, `would …` of a dry run, or
            `failed`.
        release: What runs there; None where nothing was decided.
        platform: Such as `aarch64, Python 3.11, glibc 2.36`; None where it was not seen.
        online: Whether it said that it reached the broker; None where nobody waited.
        notes: What a person should know, one line each.
        error: Why it failed, one line; None when it did not.
        hint: What to try, or None.
        exit_code: 0, or that of the failure.
    """

    host: str
    result: str
    device: str | None = None
    release: str | None = None
    platform: str | None = None
    online: bool | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0
