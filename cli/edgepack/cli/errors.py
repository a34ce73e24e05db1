"""Errors of the command line itself.

EdgepackError
└── UsageError                (2) flags, environment or configuration file are wrong
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class UsageError(EdgepackError):
    """What the caller typed or configured is wrong.

    Attributes:
        hint: What to try, one line, or "".
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
