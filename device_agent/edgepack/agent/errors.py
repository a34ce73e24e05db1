"""Errors of the agent, split by who can act.

EdgepackError
├── ConfigError           the operator: agent.toml is wrong
├── StoreError            the device: the state folder cannot be used (full, read-only, locked)
│   └── DamagedError      the device: what is in it cannot be made out
├── FetchError            the network: try again later
├── DecisionError         the person on the device: there is no such model or version
├── UpgradeError          the upgrade: this new version cannot run here; the old one goes on
├── UnknownModelError     the caller: no such model answers here
├── BusyError             the caller: try again, too many requests wait
└── RejectedError         the bundle: refused for good, with a machine-readable reason
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class ConfigError(EdgepackError):
    """agent.toml cannot be read or says something impossible."""

    exit_code: ClassVar[int] = 2


class StoreError(EdgepackError):
    """The state folder cannot be read or written."""

    exit_code: ClassVar[int] = 9


class DamagedError(StoreError):
    """What the state folder holds is not what the agent wrote."""


class FetchError(EdgepackError):
    """A source did not give the bundle; another try may."""

    exit_code: ClassVar[int] = 7


class UnknownModelError(EdgepackError):
    """No model of that name answers on this device."""

    exit_code: ClassVar[int] = 2


class BusyError(EdgepackError):
    """Too many requests wait already; nothing was done."""

    exit_code: ClassVar[int] = 7


class RejectedError(EdgepackError):
    """A bundle is refused until the desired state changes.

    Attributes:
        reason: One of the words in docs/operations.md ("not_trusted", "self_test_failed", …).
    """

    exit_code: ClassVar[int] = 8

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class DecisionError(EdgepackError):
    """A person's command cannot be followed; nothing changed.

    Attributes:
        reason: "unknown_model", "not_on_disk", "ambiguous", "not_offered", ….
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UpgradeError(EdgepackError):
    """A new version of the agent is not taken, or was taken back; the old one goes on."""

    exit_code: ClassVar[int] = 8
