"""Between an agent and its broker: counts what goes over the line, as IP packets.

The kernel counts segments and bytes of each TCP connection (`TCP_INFO`, tcp(7)); the relay asks it
about its side of the device's connection. Every segment has an IPv4 header (20 bytes) and a TCP
header with timestamps (32 bytes); the two that open a connection have 8 bytes of options more. The
segment size is that of an Ethernet, so that loopback cuts large messages as a network would.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_MSS: Final = 1448
_HEADERS: Final = 20 + 32
_OPENING: Final = _HEADERS + 2 * 8  # the kernel does not count the SYN that it was made of
# struct tcp_info of linux/tcp.h: u64 bytes_acked, bytes_received, u32 segs_out, segs_in
_ACKED_AT: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What went over the line, both ways together.

    Attributes:
        packets: IP packets.
        payload_bytes: Bytes in them above TCP (TLS and what is in it).
        connections: How many there were.
    """

    packets: int = 0
    payload_bytes: int = 0
    connections: int = 0

    @property
    def ip_bytes(self) -> int:
        """Bytes at IP level."""
        return self.payload_bytes + self.packets * _HEADERS + self.connections * _OPENING

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            packets=self.packets + other.packets,
            payload_bytes=self.payload_bytes + other.payload_bytes,
            connections=self.connections + other.connections,
        )

    def __sub__(self, other: "Counted") -> "Counted":
        return Counted(
            packets=self.packets - other.packets,
            payload_bytes=self.payload_bytes - other.payload_bytes,
            connections=self.connections - other.connections,
        )


class CountingRelay:
    """Passes connections on to a port on loopback.

    Args:
        port: Where to.

    Attributes:
        refuses: Whether new connections are ended at once.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.refuses = False
        self._ended = Counted()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _MSS)
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def counted(self) -> Counted:
        """What went over it until now."""
        with self._lock:
            found = self._ended
            for one in self._open:
                found += _count(one)
            return found

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                if self.refuses:
                    device.close()
                    continue
                device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open.add(device)
                threading.Thread(target=self._serve, args=(device,), daemon=True).start()

    def _serve(self, device: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self._to)) as broker:
            broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pass, args=(broker, device), daemon=True)
            back.start()
            _pass(device, broker)
            back.join()
        with self._lock:
            self._ended += _count(device)
            self._open.discard(device)
        device.close()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _count(one: socket.socket) -> Counted:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    acked, received, out, into = struct.unpack_from("=QQII", info, _ACKED_AT)
    # of a connection that has ended, its two FINs are among the bytes
    return Counted(packets=out + into, payload_bytes=acked + received, connections=1)


@contextlib.contextmanager
def relay(port: int) -> Iterator[CountingRelay]:
    """A relay that is closed in the end."""
    made = CountingRelay(port)
    try:
        yield made
    finally:
        made.close()
