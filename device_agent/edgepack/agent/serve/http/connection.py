"""One connection: h11 reads and writes HTTP/1.1, and here is what it leaves open.

Bodies are bounded before they are kept, requests of one connection are answered one after the
other, and whoever is slow is let go. Nothing here knows what is served: that is the `Site`.
"""

import asyncio
import logging
import time
from typing import Protocol

import h11

from edgepack.agent.serve.http.dialogue import Dialogue
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.messages import (
    Answerer,
    Head,
    HttpError,
    Request,
    Response,
    Site,
    Traffic,
    error_response,
)

logger = logging.getLogger(__name__)

_MAX_LINGER_BYTES = 64 * 1024 * 1024


class Door(Protocol):
    """The server, as a connection sees it."""

    site: Site
    limits: HttpLimits
    traffic: Traffic

    def entered(self, connection: "Connection") -> bool:
        """A connection was made; False if it is one too many."""

    def left(self, connection: "Connection") -> None:
        """A connection ended."""


class Connection(asyncio.Protocol):
    """Answers the requests of one connection.

    Args:
        door: The server.
        is_local: Whether it is a unix socket's.
    """

    def __init__(self, door: Door, *, is_local: bool) -> None:
        self._door = door
        self._limits = door.limits
        self._is_local = is_local
        self._http = Dialogue(door.limits.max_header_bytes)
        self._transport: asyncio.Transport | None = None
        self._is_tls = False
        self._head: Head | None = None
        self._answerer: Answerer | None = None
        self._chunks: list[bytes | bytearray] = []
        self._received = 0
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._is_paused = False
        self._can_write = True
        self._is_lingering = False
        self._is_leaving = False
        self._deadline_s = 0.0
        self._is_idle = False  # between two requests, or before the first
        self._is_answered = False  # and the caller has not taken all of it

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._deadline_s = time.monotonic() + self._limits.header_s
        if not self._door.entered(self):
            self._refuse(
                HttpError(
                    503,
                    f"there are {self._limits.max_connections} connections already",
                    headers=((b"Retry-After", b"1"),),
                )
            )

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._is_lingering:
            self._received += len(data)
            if self._received > _MAX_LINGER_BYTES:
                self.abort()
            return
        if self._task is not None or self._is_answered:
            self._http.receive(data)
            self._pause()  # what comes now belongs to the next request: one chunk is enough
            return
        is_first, self._is_idle = self._is_idle, False
        if is_first:
            known = self._http.repeat(data)
            if known is not None:
                self._begin_again(*known)
                return
            self._deadline_s = time.monotonic() + self._limits.header_s
        self._http.receive(data, is_first=is_first)
        self._advance()

    def eof_received(self) -> bool:
        """The caller sends no more; what it asked for is still answered."""
        if self._is_lingering:
            self._close()
            return False
        self._http.receive(b"")
        if self._task is None:
            self._advance()
        return self._task is not None and not self._is_tls  # TLS cannot be half closed

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; a model that runs goes on, and its answer goes nowhere."""
        self._transport = None
        self._chunks = []
        if self._task is None:
            self._release()
        self._door.left(self)

    def pause_writing(self) -> None:
        """The caller takes its answer slower than it is made."""
        self._can_write = False
        self._deadline_s = time.monotonic() + self._limits.write_s

    def resume_writing(self) -> None:
        """The caller took its answer."""
        self._can_write = True
        if self._is_answered and not self._is_lingering and not self._is_leaving:
            self._next_request()

    # What the server tells

    def check(self, now_s: float) -> None:
        """Let go of whoever is late."""
        transport = self._transport
        if transport is None or (self._task is not None and self._can_write):
            return
        if now_s < self._deadline():
            return
        if not self._can_write:
            self.abort()
        elif self._is_idle or self._is_lingering:
            self._close()
        else:
            what = "headers" if self._head is None else "body"
            self._refuse(HttpError(408, f"the request's {what} took too long"))

    def leave(self) -> None:
        """End as soon as nothing is under way."""
        self._is_leaving = True
        if self._task is None:
            self._close()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    # Requests

    def _advance(self) -> None:
        """Go on with what was received."""
        while self._transport is not None and not self._is_lingering:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._write(self._http.go_on())
                    return
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    self._keep(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._answer_soon()
                    return
                else:
                    if isinstance(event, h11.ConnectionClosed):
                        self._close()
                    return
            except h11.RemoteProtocolError as exc:
                self._refuse(HttpError(exc.error_status_hint, f"not HTTP/1.1: {exc}"))
            except HttpError as exc:
                self._refuse(exc)

    def _begin_again(self, head: Head, body: bytes) -> None:
        """All of a request with a head that came before."""
        self._head = head
        try:
            self._answerer = self._door.site.admit(head)
            self._keep(body)
        except HttpError as exc:
            self._refuse(exc)
            return
        self._answer_soon()

    def _begin(self, event: h11.Request) -> None:
        if event.http_version not in (b"1.1", b"1.0"):
            raise HttpError(505, "HTTP must be 1.1 or 1.0")
        headers: dict[bytes, bytes] = {}
        size = len(event.target)
        for name, value in event.headers:
            size += len(name) + len(value)
            if size > self._limits.max_header_bytes:  # h11 bounds only what is not complete
                raise HttpError(
                    431, f"headers must have at most {self._limits.max_header_bytes} bytes"
                )
            if name in (b"transfer-encoding", b"content-length"):
                if b"transfer-encoding" in headers or b"content-length" in headers:
                    raise HttpError(400, "not HTTP/1.1: the body's length is given twice")
            elif name in (b"host", b"authorization") and name in headers:
                raise HttpError(400, f"header {name.decode()} must stand once")
            headers[name] = value
        self._head = head = Head(
            method=event.method.decode("ascii"),
            target=event.target.decode("ascii"),
            headers=headers,
            is_local=self._is_local,
        )
        length = headers.get(b"content-length")
        if length is not None:
            self._check_length(int(length))
        self._deadline_s = time.monotonic() + self._limits.body_s
        self._answerer = self._door.site.admit(head)

    def _keep(self, data: bytes | bytearray) -> None:
        self._received += len(data)
        self._check_length(self._received)
        traffic = self._door.traffic
        if traffic.held_bytes + len(data) > self._limits.max_held_bytes:
            raise HttpError(
                503, "bodies of others take all the room", headers=((b"Retry-After", b"1"),)
            )
        traffic.held_bytes += len(data)
        self._held += len(data)
        self._chunks.append(data)

    def _release(self) -> None:
        self._door.traffic.held_bytes -= self._held
        self._held = 0

    def _check_length(self, size: int) -> None:
        if size > self._limits.max_body_bytes:
            raise HttpError(
                413, f"body must have at most {self._limits.max_body_bytes} bytes, got {size}"
            )

    def _answer_soon(self) -> None:
        assert self._head is not None
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._http.heard(self._head, len(body))
        request = Request(self._head, body)
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        assert self._answerer is not None
        try:
            response = await self._answerer(request)
        except HttpError as exc:
            response = error_response(exc)
        except Exception:  # one request must not go unanswered for a defect of ours
            logger.exception("http.defect target=%s", request.head.target[:200])
            response = error_response(HttpError(500, "the device failed; its log tells why"))
        self._task = None
        self._release()
        if self._transport is None:
            return
        self._send(response)
        if self._http.must_close or self._is_leaving:
            self._close()
            return
        self._is_answered = True
        if self._can_write:
            self._next_request()

    def _next_request(self) -> None:
        if not self._http.next_request():
            return
        self._is_answered = False
        self._head = None
        self._answerer = None
        self._received = 0
        self._is_idle = True
        self._deadline_s = time.monotonic() + self._limits.idle_s
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        waiting, is_over = self._http.waiting
        if not waiting and not is_over:
            return
        if waiting:
            self._is_idle = False
            self._deadline_s = time.monotonic() + self._limits.header_s
        self._advance()

    # Answers

    def _send(self, response: Response) -> None:
        self._door.traffic.answered(response.status)
        is_head = self._head is not None and self._head.method == "HEAD"
        for part in self._http.answer(response, is_last=self._is_leaving, has_body=not is_head):
            self._write(part)

    def _write(self, data: bytes | memoryview) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _refuse(self, error: HttpError) -> None:
        """Answer before the request is all there, and end the connection."""
        self._chunks = []
        self._release()
        if not self._http.can_answer:
            self.abort()
            return
        refused = error_response(error)
        closing = (*refused.headers, (b"Connection", b"close"))
        self._send(Response(status=refused.status, body=refused.body, headers=closing))
        self._linger()

    def _linger(self) -> None:
        """Send no more, and read on for a while: a close would throw the answer away."""
        transport = self._transport
        if transport is None:
            return
        self._is_lingering = True
        self._received = 0
        self._deadline_s = time.monotonic() + self._limits.linger_s
        if self._is_paused:
            self._is_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _deadline(self) -> float:
        if self._head is None or not self._can_write or self._is_lingering:
            return self._deadline_s
        return self._deadline_s + self._limits.body_s * (self._received // self._limits.body_rate)
