"""What a pickle asks for, read from its opcodes; nothing of it is run.

For telling files apart and for messages. What may be loaded is decided where it is loaded.
"""

import pickletools
from typing import BinaryIO, Final

from edgepack.converter.errors import ModelFileError

_TEXT: Final = frozenset(
    ["SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING"]
)
_PUT: Final = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_GET: Final = frozenset(["GET", "BINGET", "LONG_BINGET"])
_MOST_OPCODES: Final = 5_000_000  # some seconds


def names_in(file: BinaryIO, *, what: str, partial: bool = False) -> list[tuple[str, str]]:
    """Every (module, name) that one pickle asks for, each once, in their order.

    Args:
        file: At the pickle's first byte; left behind its last.
        what: For messages.
        partial: The file may end before the pickle does: what was seen until then is given.

    Raises:
        ModelFileError: It is no pickle, or a damaged one.
    """
    found: dict[tuple[str, str], None] = {}
    texts = _Texts()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number > _MOST_OPCODES:
                raise ModelFileError(f"{what} holds a pickle of more than {_MOST_OPCODES} steps")
            if opcode.name == "GLOBAL":
                module, _, attribute = str(argument).partition(" ")
                found[module, attribute] = None
            elif opcode.name == "STACK_GLOBAL" and len(texts.latest) == 2:
                found[texts.latest[0], texts.latest[1]] = None
            texts.follow(opcode.name, argument)
    except (ValueError, EOFError, IndexError, UnicodeError, OverflowError) as exc:
        if partial:
            return list(found)
        raise ModelFileError(f"{what} holds a damaged pickle: {exc}") from exc
    return list(found)


class _Texts:
    """The last two texts that were pushed: of them STACK_GLOBAL makes a name."""

    def __init__(self) -> None:
        self.latest: list[str] = []
        self._memo: dict[object, str] = {}
        self._top: str | None = None  # what a memo would keep, if it is text

    def follow(self, opcode: str, argument: object) -> None:
        """Take one step of the pickle."""
        if opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._top or ""
            return
        if opcode in _PUT:
            self._memo[argument] = self._top or ""
            return
        self._top = None
        if opcode in _TEXT:
            self._top = str(argument)
        elif opcode in _GET:
            self._top = self._memo.get(argument, "")
        if self._top is not None:
            self.latest = [*self.latest[-1:], self._top]
