"""Which models there are, and which of them answer."""

from collections.abc import Callable, Collection

from edgepack.agent.serve.http.messages import HttpError
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.served import ServedModel
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The models of this device.

    Attributes:
        registry: Those that answer.
        expected: Names of those that are installed; the rest of them are being loaded.
        is_started: Whether every model had its turn since the agent started.
    """

    registry: Registry
    expected: Callable[[], Collection[str]]
    is_started: Callable[[], bool]

    def served(self, name: str, version: str | None = None) -> ServedModel:
        """The model that answers under a name.

        Raises:
            HttpError: There is none (404), or it is being loaded (503).
        """
        served = self.registry.get(name)
        if served is None:
            if name in self.expected():
                raise HttpError(
                    503, f"model {name!r} is being loaded", headers=((b"Retry-After", b"1"),)
                )
            raise HttpError(404, f"model {name[:80]!r} is not on this device")
        answers = served.installed.release.version
        if version is not None and version != answers:
            raise HttpError(
                404, f"version {version[:80]!r} of model {name!r} does not answer, {answers} does"
            )
        return served

    @property
    def is_ready(self) -> bool:
        """Whether all models that should answer do."""
        return self.is_started() and not self.missing()

    def missing(self) -> list[str]:
        """Models that are installed and do not answer (yet)."""
        return sorted(set(self.expected()) - self.registry.all().keys())
