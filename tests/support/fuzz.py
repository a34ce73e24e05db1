"""Documents that are nearly right: a stated number of them, the same ones every time."""

import copy
import json
import os
import random
from collections.abc import Iterator
from typing import Any

# Inputs for each parser in `make test`. `EDGEPACK_FUZZ_INPUTS=200000 pytest …` looks longer.
INPUTS = int(os.environ.get("EDGEPACK_FUZZ_INPUTS", "3000"))

_TOKENS = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"\\ud800",
    b"{",
    b"}",
    b"[[[[[[[[",
    b"]",
    b",",
    b":",
    b"NaN",
    b"Infinity",
    b"-0",
    b"1e999",
    b"9" * 400,
    b"null",
    b"true",
    b"..",
    b"+",
    b"#",
    b"/",
    b"\r\n",
    b"\xe2\x80\xae",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**53,
    2**63,
    2**64,
    10**40,
    0.5,
    -1e308,
    "",
    "a/b",
    "../..",
    "+",
    "#",
    "\x00",
    "\u202e",
    "x" * 5000,
    "sha256:" + "0" * 64,
    [],
    {},
    [[]],
    {"": {}},
)


def nearly_right(example: bytes, *, seed: str, inputs: int = INPUTS) -> Iterator[bytes]:
    """Inputs made from one good document: bytes damaged, and values exchanged."""
    chance = random.Random(seed)
    value = json.loads(example)
    for _ in range(inputs):
        if chance.random() < 0.5:
            yield _damaged(bytearray(example), chance)
        else:
            yield json.dumps(_exchanged(copy.deepcopy(value), chance)).encode()


def _damaged(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice(_TOKENS)
        elif kind == 2:
            del data[at : at + chance.randint(1, 40)]
        else:
            data[at:at] = data[at : at + chance.randint(1, 40)]
    return bytes(data)


def _exchanged(value: Any, chance: random.Random) -> Any:
    for _ in range(chance.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(chance.choice(_VALUES))  # never ours: it would grow
        parent, key = chance.choice(places)
        kind = chance.randrange(4)
        if kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[chance.choice(("later", "", "x" * 300))] = copy.deepcopy(chance.choice(_VALUES))
        elif kind == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(chance.choice(_VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)
