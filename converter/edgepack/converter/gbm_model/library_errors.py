"""What helps of a library's error: its first line, without the place in the library's source."""

import re

from edgepack.converter.errors import one_line

_PLACE = re.compile(r"^(\[[^\]]*\]\s*)?(\S+\.(cc|cpp|h|hpp):\d+:\s*)?")


def library_line(exc: BaseException) -> str:
    """The error as one line.

    >>> library_line(ValueError("[09:45:00] /x/json.cc:409: Unknown construct"))
    'Unknown construct'
    """
    first = next(iter(str(exc).strip().splitlines()), "")
    return _PLACE.sub("", first).rstrip(" :") or one_line(exc)
