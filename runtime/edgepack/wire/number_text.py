"""Long lists of numbers in JSON, taken out of a document before it is parsed.

Python's parser spends 0.2 µs on each number with a fraction; who knows what array they are to
become can do better. Here they are only found; parsing them is left to others.
"""

import os
import re
from collections.abc import Sequence
from typing import Final

from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue, parse
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

LONG_BYTES: Final = 16 * 1024  # from here on a list is worth a parser of its own
_DATA: Final = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[')
_SIGNS: Final = b"0123456789+-.eE,[] \t\r\n"
_PLACE: Final = os.urandom(16).hex()  # nobody can guess what stands for a list that was taken out


@dataclass(frozen=True, slots=True)
class NumberText:
    """The JSON text of a long list of numbers, flat or nested, that nobody has parsed yet.

    It holds nothing but digits, signs, points, exponents, commas, brackets and spaces; whether it
    is right JSON is for whoever parses it to say.

    Attributes:
        text: From "[" to "]".
    """

    text: bytes

    def values(self) -> list[JsonValue]:
        """Parse it as any JSON.

        Raises:
            WireError: It is not right.
        """
        try:
            # numbers that are too large become inf here; whoever makes the arrays refuses them
            found = parse(self.text, what="data", max_bytes=len(self.text), finite=False)
        except DocumentError as exc:
            raise WireError(str(exc)) from exc
        assert isinstance(found, list)
        return found


def take_out(text: bytes | bytearray) -> tuple[bytes | bytearray, list[NumberText]]:
    """Replace each long list of numbers under a key `data` by a placeholder.

    In valid JSON such a key with its colon stands nowhere but in front of a value: within a string
    its quotes would be escaped. What is not valid stays so without the list.

    Returns:
        The document, and the lists; `taken` finds one of them.
    """
    if len(text) < LONG_BYTES:
        return text, []
    parts: list[bytes] = []
    texts: list[NumberText] = []
    done = 0
    look = 0
    while match := _DATA.search(text, look):
        look = match.end()
        start = match.end() - 1
        stop = min(
            (place for sign in (b'"', b"}") if (place := text.find(sign, start)) >= 0),
            default=len(text),
        )
        end = text.rfind(b"]", start, stop) + 1
        found = bytes(text[start:end])
        if len(found) < LONG_BYTES or found.translate(None, _SIGNS):
            continue
        parts += [bytes(text[done:start]), b'{"%s":%d}' % (_PLACE.encode(), len(texts))]
        texts.append(NumberText(found))
        done = look = end  # nothing in a list of numbers looks like a key
    parts.append(bytes(text[done:]))
    return b"".join(parts), texts


def taken(value: JsonValue, texts: Sequence[NumberText]) -> NumberText | None:
    """The list that a placeholder stands for, or None where the value is none."""
    if not isinstance(value, dict):
        return None
    place = value.get(_PLACE)
    return texts[place] if isinstance(place, int) else None
