"""Between a device and its broker: counts MQTT packets, cuts connections where it is told."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
PUBLISH, PUBACK, SUBACK = 3, 4, 9


@dataclass(frozen=True)
class Packet:
    """A packet that is about to be passed on.

    Attributes:
        connection: Number of the connection, from 1.
        number: Number of the packet on it, both ways together, from 1.
        up: Whether it goes to the broker.
        kind: Its MQTT type.
    """

    connection: int
    number: int
    up: bool
    kind: int


class CuttingProxy:
    """Passes MQTT on, packet by packet.

    Args:
        broker_port: Where to.
        cuts: Whether the connection ends instead of passing this packet on.
        port: Where it listens; any free one without it.
    """

    def __init__(self, broker_port: int, cuts: Callable[[Packet], bool], port: int = 0) -> None:
        self._broker_port = broker_port
        self._cuts = cuts
        self.connections = 0
        self.cut: list[Packet] = []
        self._listener = socket.create_server((LOOPBACK, port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> "CuttingProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                self.connections += 1
                _Connection(self, device, self._broker_port, self.connections)


class _Connection:
    def __init__(self, proxy: CuttingProxy, device: socket.socket, port: int, number: int) -> None:
        self._proxy, self._number = proxy, number
        self._packets = self._done = 0
        self._lock = threading.Lock()
        self._ends = (device, socket.create_connection((LOOPBACK, port)))
        for up in (True, False):
            threading.Thread(target=self._pass, args=(up,), daemon=True).start()

    def _pass(self, up: bool) -> None:
        source, target = self._ends if up else self._ends[::-1]
        with suppress(OSError, EOFError), source.makefile("rb") as stream:
            while packet := _read_packet(stream):
                with self._lock:
                    self._packets += 1
                    seen = Packet(self._number, self._packets, up, packet[0] >> 4)
                    if self._proxy._cuts(seen):
                        self._proxy.cut.append(seen)
                        break
                    target.sendall(packet)
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._done += 1
            if self._done == len(self._ends):
                for end in self._ends:
                    end.close()


def _read_packet(stream) -> bytes:
    head = stream.read(1)
    length = shift = 0
    while head:
        byte = stream.read(1)
        if not byte:
            raise EOFError
        head += byte
        length |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    return head + stream.read(length) if head else b""
