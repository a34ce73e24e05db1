"""What is said on one connection: h11, and a memory that saves it half of its work."""

from typing import Any, Final, TypeAlias

import h11

from edgepack.agent.serve.http.messages import Head, Response
from edgepack.agent.serve.http.repeats import KnownHeads, answer_head

_JOINED_BYTES: Final = 64 * 1024  # up to here one write of a copy is cheaper than several

Event: TypeAlias = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
Parts: TypeAlias = list[bytes | memoryview]


class Dialogue:
    """HTTP/1.1 as a server speaks it, one request after the other.

    h11 is not told of a request whose head it has read before, until something needs it to know:
    more bytes, the caller's end, an answer that ends the connection.

    Args:
        max_header_bytes: Largest request line with headers.
    """

    def __init__(self, max_header_bytes: int) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=max_header_bytes)
        self._known = KnownHeads()
        self._piece = b""  # what came first after the last request
        self._untold = b""

    # What comes

    def repeat(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body where data is a whole request whose head came before; nothing waits."""
        found = self._known.find(data)
        if found is not None:
            self._untold = data
        return found

    def receive(self, data: bytes, *, is_first: bool = False) -> None:
        """Bytes came, or the end (none); `is_first`: the first since the last request.

        Raises:
            h11.RemoteProtocolError: They came after the end.
        """
        self._tell()
        self._piece = data if is_first else b""
        self._http.receive_data(data)

    def next_event(self) -> Event:
        """What h11 makes of what came.

        Raises:
            h11.RemoteProtocolError: It is not HTTP/1.1.
        """
        return self._http.next_event()

    def heard(self, head: Head, body_bytes: int) -> None:
        """A request is all there."""
        piece, self._piece = self._piece, b""  # what follows in h11 is another request
        if piece and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._known.learn(piece, head, body_bytes)

    @property
    def waiting(self) -> tuple[bytes, bool]:
        """What came after this request, and whether nothing more will."""
        return self._http.trailing_data

    # What is said

    def go_on(self) -> bytes:
        """What a caller wants to see before it sends its body; empty if it does not wait."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    @property
    def can_answer(self) -> bool:
        """Whether an answer may still be begun."""
        self._tell()
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def answer(self, response: Response, *, is_last: bool, has_body: bool) -> Parts:
        """The bytes of an answer, to be written in order.

        Args:
            response: The answer.
            is_last: Whether the connection ends with it.
            has_body: False in answer to HEAD.
        """
        size = sum(len(part) for part in response.body)
        headers = [
            (b"Content-Type", response.content_type),
            (b"Content-Length", b"%d" % size),
            *response.headers,
        ]
        if is_last:
            headers.append((b"Connection", b"close"))
        elif self._untold and size <= _JOINED_BYTES:
            self._untold = b""  # h11 never hears of this request
            return [b"".join((answer_head(response.status, tuple(headers)), *response.body))]
        self._tell()
        parts: Parts = [
            self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        ]
        if has_body:
            body = response.body
            if len(body) > 1 and size <= _JOINED_BYTES:
                body = (b"".join(body),)
            for part in body:
                data: Any = h11.Data(data=part)  # type: ignore[arg-type]  # passed through
                parts += self._http.send_with_data_passthrough(data) or []
        self._http.send(h11.EndOfMessage())  # writes nothing, where the length was said
        return [b"".join(parts)] if size <= _JOINED_BYTES else parts

    @property
    def must_close(self) -> bool:
        """Whether the answer that was given ends the connection."""
        return self._http.our_state is h11.MUST_CLOSE

    def next_request(self) -> bool:
        """Be ready for the next one; False if there is none."""
        states = {self._http.our_state, self._http.their_state}
        if states == {h11.DONE}:
            self._http.start_next_cycle()
            return True
        return states == {h11.IDLE}

    def _tell(self) -> None:
        """Let h11 know of the request that is being answered."""
        if self._untold:
            self._http.receive_data(self._untold)
            self._untold = b""
            while not isinstance(self._http.next_event(), h11.EndOfMessage):
                pass
