"""Errors of setting a device up, split by who can act.

FleetError
└── SetupError
    ├── HostNameError        (2) what was typed is no host
    ├── SettingsError        (2) options, files or the device's agent.toml are wrong
    ├── ReachError           (7) the host cannot be logged in to, or the connection broke
    ├── WheelError           (7) pip gets no wheels for that platform
    ├── UnfitError           (8) the host is no place for an agent, and why
    ├── InstallError         (8) the installation failed there
    ├── FullError            (9) the host's disk does not take it
    └── OfflineError         (7) it is installed, and does not reach the broker
"""

from typing import ClassVar

from edgepack.fleet.errors import FleetError


class SetupError(FleetError):
    """A host could not be set up."""


class HostNameError(SetupError):
    """Not `[USER@]HOST`."""

    exit_code: ClassVar[int] = 2


class SettingsError(SetupError):
    """An option or a file contradicts another, or what is on the device."""

    exit_code: ClassVar[int] = 2


class ReachError(SetupError):
    """ssh cannot log in, or the connection broke."""

    exit_code: ClassVar[int] = 7


class WheelError(SetupError):
    """There are no wheels for a platform, or pip cannot get them."""

    exit_code: ClassVar[int] = 7


class UnfitError(SetupError):
    """The host lacks what an agent needs."""

    exit_code: ClassVar[int] = 8


class InstallError(SetupError):
    """What runs on the host failed."""

    exit_code: ClassVar[int] = 8


class FullError(SetupError):
    """The host's disk does not take what belongs there."""

    exit_code: ClassVar[int] = 9


class OfflineError(SetupError):
    """The agent runs, and has not reached the broker in time."""

    exit_code: ClassVar[int] = 7
