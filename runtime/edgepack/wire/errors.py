"""Errors of the wire formats.

EdgepackError
└── WireError                 a topic, id or message is not as docs/mqtt.md says
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError


class WireError(EdgepackError):
    """A topic, an id or a message from outside is malformed."""

    exit_code: ClassVar[int] = 2
