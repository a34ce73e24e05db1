"""What can be wrong between a source and a model.

EdgepackError
├── MismatchError   the operator: an input does not fit the model's contract
└── MessageError    the sensor: a message cannot be used, with a word that is counted
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class MismatchError(EdgepackError):
    """An input and a contract do not fit; one line with all that is wrong."""

    exit_code: ClassVar[int] = 2


class MessageError(EdgepackError):
    """One message makes no prediction.

    Attributes:
        reason: "not_json", "missing", "wrong_value", "stale", "streams", ….
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
