"""The loop breaker: a version that failed too often is left alone, whatever asks for it.

Within one wish a version that failed is not tried again anyway. Desired states that change to and
fro, and devices that go down again and again, would still install and roll back for ever; each
round costs writes to a flash that has few of them. A version that does not fail is never counted.

Pure: the clock comes from the caller. A clock that jumps back makes failures young again, which
only delays the next try; a person can always clear them.
"""

from edgepack.agent.config import MAX_ATTEMPTS
from edgepack.trust.values import dataclass

_DIGESTS_KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """When a version failed on this device, in seconds since 1970, the last ten times."""

    digest: str
    at_s: tuple[int, ...] = ()


def with_failure(failures: tuple[Failures, ...], digest: str, now_s: float) -> tuple[Failures, ...]:
    """Remember one more failure, of the last eight versions that had any.

    >>> with_failure((), "sha256:00", 7.5)
    (Failures(digest='sha256:00', at_s=(7,)),)
    """
    earlier = next((one.at_s for one in failures if one.digest == digest), ())
    now = Failures(digest=digest, at_s=(*earlier, int(now_s))[-MAX_ATTEMPTS:])
    return (*(one for one in failures if one.digest != digest), now)[-_DIGESTS_KEPT:]


def recent_failures(
    failures: tuple[Failures, ...], digest: str, *, now_s: float | None, window_s: float
) -> int:
    """How often a version failed within the last `window_s` seconds, or ever without a clock.

    >>> recent_failures(with_failure((), "sha256:00", 7.5), "sha256:00", now_s=20, window_s=60)
    1
    """
    times = next((one.at_s for one in failures if one.digest == digest), ())
    return len(times) if now_s is None else sum(now_s - at_s < window_s for at_s in times)
