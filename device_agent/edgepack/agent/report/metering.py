"""When figures are told: rarely by default, often while somebody watches.

A device on a mobile contract shall cost a few megabytes a month. So figures of a model come every
`metrics.interval_s`, and only if something has changed; what is for the record only (unchanged
figures, those of the agent, the retained `out/latest`) comes every `metrics.slow_s`. Whoever looks
asks for more with a lease (`in/cmd/watch`), which ends by itself.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from edgepack.agent.config import MetricsConfig
from edgepack.agent.serve.registry import Registry
from edgepack.trust.values import dataclass
from edgepack.wire.commands import parse_watch
from edgepack.wire.messages import Scalar

Fields = Mapping[str, Scalar | None]

_FIRST_S = 2.0
_DIGITS = 5


class Told(Protocol):
    """Where figures go."""

    def metrics(self, model: str, fields: Fields) -> None:
        """Figures of one model."""

    def agent(self) -> None:
        """Figures of the agent and the device."""

    async def latest(self, model: str, fields: Fields) -> None:
        """Figures and prediction of one model, to be retained."""

    @property
    def is_connected(self) -> bool:
        """Whether anybody can hear it now."""


@dataclass(frozen=True, slots=True)
class _Lease:
    until_s: float
    interval_s: float


class Metering:
    """Tells figures.

    Args:
        config: `[metrics]`.
        registry: The models.
        told: Where figures go.
        more: More figures of a model, by its name.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        config: MetricsConfig,
        registry: Registry,
        told: Told,
        more: Callable[[str], Fields],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._registry = registry
        self._told = told
        self._more = more
        self._clock = clock
        self._lease: _Lease | None = None
        self._leased = asyncio.Event()
        self._slow_s: float | None = None
        self._last: dict[str, Fields] = {}

    async def watched(self, payload: bytes) -> dict[str, Scalar]:
        """Somebody looks (`in/cmd/watch`).

        Raises:
            WireError: It is not such a command, or asks for too much.
        """
        command = parse_watch(payload)
        now_s = self._clock()
        until_s, interval_s = now_s + command.seconds, command.interval_s
        lease = self._current(now_s)
        if lease is not None:  # others look, too
            until_s = max(until_s, lease.until_s)
            interval_s = min(interval_s, lease.interval_s)
        self._lease = _Lease(until_s, interval_s)
        if lease is None or interval_s < lease.interval_s:
            self._leased.set()
        return {"seconds": command.seconds, "interval_s": interval_s}

    async def run(self) -> None:
        """Tell until cancelled."""
        delay_s = min(_FIRST_S, self._config.interval_s)
        while True:
            try:
                async with asyncio.timeout(delay_s):
                    await self._leased.wait()
            except TimeoutError:
                pass
            self._leased.clear()
            delay_s = await self.step()

    async def step(self) -> float:
        """Tell what is due now; seconds until the next time."""
        now_s = self._clock()
        lease = self._current(now_s)
        await self.tell(now_s, in_full=lease is not None)
        interval_s = self._config.interval_s
        return interval_s if lease is None else min(interval_s, lease.interval_s)

    async def tell(self, now_s: float, *, in_full: bool) -> None:
        """Tell what is due."""
        slow_s = self._config.slow_s
        in_full = in_full or self._slow_s is None or now_s - self._slow_s >= slow_s
        if in_full:
            self._slow_s = now_s
        for name, served in self._registry.all().items():
            mirror = self._registry.mirrors.get(name)
            fields = short(
                {
                    **served.metrics(),
                    **(mirror.metrics() if mirror else {}),
                    **self._more(name),
                }
            )
            if not in_full and fields == self._last.get(name):
                continue
            self._last[name] = fields
            self._told.metrics(name, fields)
            if in_full:
                latest = served.latest.fields() if served.latest else {}
                await self._told.latest(name, {**fields, **latest})
        if in_full:
            self._told.agent()

    def _current(self, now_s: float) -> _Lease | None:
        """The lease that holds: nobody looks at a device that is away."""
        lease = self._lease
        if lease is None or now_s >= lease.until_s or not self._told.is_connected:
            return None
        return lease


def short(fields: Fields) -> dict[str, Scalar | None]:
    """Floats with five digits: more is noise, and every byte is paid for.

    >>> short({"latency_p50_ms": 0.011234567, "requests": 1234567})
    {'latency_p50_ms': 0.011235, 'requests': 1234567}
    """
    return {
        name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
        for name, value in fields.items()
    }
