"""A client over HTTP that costs as little as one in Python can: bytes that stand ready, one socket.

Whatever it costs is part of every latency that is measured with it, for each server alike.
"""

import json
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Self

from edgepack.bench.errors import BenchError

_TIMEOUT_S: Final = 30.0
_PIECE_BYTES: Final = 1 << 20
_END: Final = b"\r\n\r\n"


def request_bytes(path: str, body: bytes, *, header_bytes: int | None = None) -> bytes:
    """A whole POST; `header_bytes` is the size of the JSON in front of binary tensors."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    if header_bytes is None:
        lines.append("Content-Type: application/json")
    else:
        lines.append("Content-Type: application/octet-stream")
        lines.append(f"Inference-Header-Content-Length: {header_bytes}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def tensor_request(
    path: str, name: str, shape: Sequence[int], values: Sequence[float], data: bytes | None
) -> bytes:
    """A request with one FP32 tensor: its values in JSON, or `data` in binary form."""
    tensor: dict[str, object] = {"name": name, "datatype": "FP32", "shape": list(shape)}
    if data is None:
        tensor["data"] = list(values)
        return request_bytes(path, json.dumps({"inputs": [tensor]}).encode())
    tensor["parameters"] = {"binary_data_size": len(data)}
    document = {"parameters": {"binary_data_output": True}, "inputs": [tensor]}
    header = json.dumps(document).encode()
    return request_bytes(path, header + data, header_bytes=len(header))


class HttpCaller:
    """One connection, kept."""

    def __init__(self, port: int) -> None:
        self._door = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def ask(self, request: bytes) -> bytes:
        """Send a request, wait for all of its answer.

        Raises:
            BenchError: It is not 200.
        """
        self._door.sendall(request)
        answer = _Answer()
        while not answer.is_whole:
            answer.take(self._door.recv(_PIECE_BYTES))
        return answer.body()

    def time_s(self, request: bytes) -> float:
        """Seconds that one request takes."""
        started_s = time.perf_counter()
        self.ask(request)
        return time.perf_counter() - started_s


class _Answer:
    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._left: int | None = None
        self._head = b""

    @property
    def is_whole(self) -> bool:
        return self._left == 0

    def take(self, piece: bytes) -> None:
        if not piece:
            raise BenchError(f"server must answer, got its end after {self._head[:80]!r}")
        if self._left is None:
            self._head += piece
            head, end, rest = self._head.partition(_END)
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"server must answer 200, got {self._head[:200]!r}")
            lines = head.lower().split(b"\r\n")
            (length,) = (line for line in lines if line.startswith(b"content-length:"))
            self._left = int(length.partition(b":")[2])
            piece = rest
        self._pieces.append(piece)
        self._left -= len(piece)

    def body(self) -> bytes:
        return b"".join(self._pieces)


def throughput(port: int, request: bytes, *, clients: int, seconds: float) -> float:
    """Answers a second for so many clients, each of which asks again as soon as it is answered.

    Raises:
        BenchError: A server did not answer 200.
    """
    with selectors.DefaultSelector() as selector:
        doors = []
        try:
            for _ in range(clients):
                door = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
                door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                doors.append(door)
                selector.register(door, selectors.EVENT_READ, _Answer())
            return _drive(selector, request, seconds)
        finally:
            for door in doors:
                door.close()


def _drive(selector: selectors.BaseSelector, request: bytes, seconds: float) -> float:
    answered = 0
    started_s = time.perf_counter()
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.sendall(request)
    now_s = started_s
    while not answered or now_s < started_s + seconds:
        ready = selector.select(_TIMEOUT_S)
        if not ready:
            raise BenchError(f"server must answer within {_TIMEOUT_S:.0f} s, got nothing")
        for key, _ in ready:
            door = key.fileobj
            assert isinstance(door, socket.socket)
            key.data.take(door.recv(_PIECE_BYTES))
            if key.data.is_whole:
                answered += 1
                selector.modify(door, selectors.EVENT_READ, _Answer())
                door.sendall(request)
        now_s = time.perf_counter()
    return answered / (now_s - started_s)


def wait_for(port: int, path: str, still_runs: Callable[[], bool]) -> None:
    """Wait until a GET of the path is 200.

    Raises:
        BenchError: It is not within two minutes, or the process ended.
    """
    deadline_s = time.monotonic() + 4 * _TIMEOUT_S
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    while time.monotonic() < deadline_s and still_runs():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as door:
                door.sendall(request)
                if door.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise BenchError(f"server must be ready at {path}, got nothing")
