"""Errors of the fleet's side, split by who can act.

EdgepackError
└── FleetError
    ├── TargetError               the command asks for what is not there: a device, a model, a URL
    ├── BrokerError               the broker or the network: unreachable, refuses, too slow
    │   ├── OvertakenError        somebody else wrote the desired state meanwhile
    │   └── WaitTimeoutError      a device did not finish in time
    ├── AuditError                a device's signed history does not hold
    └── DeviceRefusedError        a device rejected or rolled back what it was asked to run
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class FleetError(EdgepackError):
    """Something on the operator's side.

    Attributes:
        hint: What to try, one line, or "".
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TargetError(FleetError):
    """What the command names is wrong or does not exist."""

    exit_code: ClassVar[int] = 2


class BrokerError(FleetError):
    """The broker cannot be reached, refuses, or does not answer in time."""

    exit_code: ClassVar[int] = 7


class OvertakenError(BrokerError):
    """Another writer changed a desired state between reading and writing it."""


class WaitTimeoutError(BrokerError):
    """Devices did not finish within the time given."""


class AuditError(FleetError):
    """A device's signed history is incomplete, changed, or not that device's."""

    exit_code: ClassVar[int] = 5


class DeviceRefusedError(FleetError):
    """At least one device rejected the model or rolled it back."""

    exit_code: ClassVar[int] = 8
