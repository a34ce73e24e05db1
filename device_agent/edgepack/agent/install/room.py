"""Room on the disk that fetches under way still need, so that two of them do not share it. Pure."""

from typing import Protocol

from edgepack.agent.install.preflight import Need
from edgepack.trust.values import dataclass


class Written(Protocol):
    """What counts the bytes that have come: a `Landing`."""

    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promise:
    landing: Written
    end_bytes: int  # of `landing.written_bytes`, when all is there
    files: int


class Room:
    """What is promised to whom, by bundle digest."""

    def __init__(self) -> None:
        self._promises: dict[str, _Promise] = {}

    def promise(self, digest: str, need: Need, landing: Written) -> None:
        """From now on a bundle's missing bytes are spoken for."""
        end_bytes = landing.written_bytes + need.size_bytes
        self._promises[digest] = _Promise(landing=landing, end_bytes=end_bytes, files=need.files)

    def let_go(self, digest: str) -> None:
        """A fetch ended, well or not."""
        self._promises.pop(digest, None)

    def with_others(self, digest: str, need: Need) -> Need:
        """What a bundle and all others under way need together."""
        others = [promise for key, promise in self._promises.items() if key != digest]
        left = [max(0, one.end_bytes - one.landing.written_bytes) for one in others]
        return Need(
            size_bytes=need.size_bytes + sum(left),
            files=need.files + sum(one.files for one in others),
        )
