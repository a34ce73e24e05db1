"""Whether a model is so quick that handing its work to a thread costs more (ADR 17)."""

from collections.abc import Mapping
from typing import Final

from edgepack.runtime.tensors import Array

_QUICK_S: Final = 0.5e-3
_LONG_S: Final = 5e-3
_ENOUGH: Final = 64
_MOST: Final = 128
_LOST_BY_SLOW: Final = 16
_AFTER_LONG: Final = -192
_MOST_BYTES: Final = 16 * 1024


class Pace:
    """Learns from single inferences; quick ones add credit, slow ones cost much of it.

    After one of more than 5 ms, as the first often is, 256 quick ones must follow.
    """

    def __init__(self) -> None:
        self._credit = 0

    def took(self, duration_s: float) -> None:
        """An inference of one sample took so many seconds."""
        if duration_s <= _QUICK_S:
            self._credit = min(self._credit + 1, _MOST)
        elif duration_s <= _LONG_S:
            self._credit = max(self._credit - _LOST_BY_SLOW, _AFTER_LONG)
        else:
            self._credit = _AFTER_LONG

    @property
    def is_quick(self) -> bool:
        """Whether the event loop may run it."""
        return self._credit >= _ENOUGH


def is_small(inputs: Mapping[str, Array]) -> bool:
    """Whether inputs are one sample of a few kilobytes: what `Pace` learns from and speaks of."""
    size_bytes = 0
    for array in inputs.values():
        size_bytes += array.nbytes
        if array.shape[:1] != (1,) or size_bytes > _MOST_BYTES:
            return False
    return True
