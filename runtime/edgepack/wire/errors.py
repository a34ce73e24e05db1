"""Errors of the wire formats, and of what goes over the wire.

EdgepackError
├── WireError                 a topic, id, URL or message is not as the documents say
├── WheelhouseError           (4) a folder of wheels is not what was signed, or none
└── TransferError             (7) a server did not give or take what it should; another try may do
    ├── StatusError           it answered with an error status
    └── UnauthorizedError     it wants credentials, or other ones
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class WireError(EdgepackError):
    """A topic, an id or a message from outside is malformed."""

    exit_code: ClassVar[int] = 2


class WheelhouseError(EdgepackError):
    """A folder of wheels lacks its manifest or a wheel, or holds another one than was signed."""

    exit_code: ClassVar[int] = 4


class TransferError(EdgepackError):
    """A server cannot be reached, breaks off, stalls, or answers what makes no sense."""

    exit_code: ClassVar[int] = 7


class StatusError(TransferError):
    """A server answered with an error.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnauthorizedError(TransferError):
    """A server refuses these credentials, or wants some."""
