"""The first packet of an MQTT connection, read before the broker behind sees a byte of it.

Only what decides over a connection is taken out: protocol level, client id, keepalive, user and
password (MQTT 3.1.1, section 3.1). It does NOT check the will; the broker does.
"""

import asyncio
from dataclasses import dataclass, field

LEVEL_311 = 4
# Client id, will topic, will message, user and password are at most 64 KB each.
MAX_CONNECT_BYTES = 5 * (2 + 65_535) + 16
_CONNECT = 0x10
_CLEAN, _WILL, _PASSWORD, _USERNAME = 0x02, 0x04, 0x40, 0x80
_FLAGS_AT = 2 + len("MQTT") + 1

ACCEPTED = 0
REFUSED_PROTOCOL = 1
REFUSED_CREDENTIALS = 4


class MalformedConnectError(ValueError):
    """The bytes are not a CONNECT packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A CONNECT packet.

    Attributes:
        protocol: "MQTT".
        level: 4 for MQTT 3.1.1, 5 for MQTT 5; the fields below are read for level 4 only.
        client_id: May be empty.
        keepalive_s: Seconds; 0 means for ever.
        username: Absent without its flag.
        password: Absent without its flag.
        packet: The whole packet, to be read again by the broker behind; of level 4 it asks for a
            clean session, whatever the client asked for: the broker behind would keep what
            comes for one that never returns, for ever.
    """

    protocol: str
    level: int
    client_id: str = ""
    keepalive_s: int = 0
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    packet: bytes = field(repr=False)


async def read_connect(reader: asyncio.StreamReader) -> Connect:
    """Read one CONNECT packet.

    Raises:
        MalformedConnectError: It is none, or too long.
        asyncio.IncompleteReadError: The connection ended before it did.
    """
    head = await reader.readexactly(1)
    if head[0] != _CONNECT:
        raise MalformedConnectError(f"first packet must be CONNECT, got type {head[0] >> 4}")
    size, shift = 0, 0
    while True:
        byte = await reader.readexactly(1)
        head += byte
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
        if shift > 21:
            raise MalformedConnectError("length of CONNECT must have at most 4 bytes, got more")
    if size > MAX_CONNECT_BYTES:
        raise MalformedConnectError(f"CONNECT must be at most {MAX_CONNECT_BYTES}, got {size}")
    return parse_connect(head, await reader.readexactly(size))


def parse_connect(head: bytes, body: bytes) -> Connect:
    """Take a CONNECT packet apart.

    Args:
        head: The fixed header.
        body: Everything after it.

    Raises:
        MalformedConnectError: It is none.
    """
    fields = _Fields(body)
    protocol = fields.text()
    level, flags = fields.number(1), fields.number(1)
    keepalive_s = fields.number(2)
    if protocol != "MQTT" or level != LEVEL_311:  # MQTT 5 has properties next: not ours to read
        return Connect(protocol=protocol, level=level, packet=head + body)
    client_id = fields.text()
    if flags & _WILL:
        fields.block()
        fields.block()
    return Connect(
        protocol=protocol,
        level=level,
        client_id=client_id,
        keepalive_s=keepalive_s,
        username=fields.text() if flags & _USERNAME else None,
        password=fields.block() if flags & _PASSWORD else None,
        packet=head + body[:_FLAGS_AT] + bytes([flags | _CLEAN]) + body[_FLAGS_AT + 1 :],
    )


def connack(code: int) -> bytes:
    """A CONNACK packet without a session.

    An MQTT 5 client understands code 1 in this form: the specification lets a server that does
    not know MQTT 5 answer in its own (MQTT 5, section 3.1.2.2).
    """
    return bytes([0x20, 2, 0, code])


class _Fields:
    """Length-prefixed fields of a packet, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def block(self) -> bytes:
        return self._take(self.number(2))

    def text(self) -> str:
        try:
            return self.block().decode()
        except UnicodeDecodeError as exc:
            raise MalformedConnectError("CONNECT must hold UTF-8, got something else") from exc

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise MalformedConnectError("CONNECT ends before its fields do")
        self._at += size
        return taken
