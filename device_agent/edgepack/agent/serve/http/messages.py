"""A request and its answer over HTTP, as values; and the error that is an answer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Protocol, TypeAlias

from edgepack.trust.strict_json import JsonValue, render
from edgepack.trust.values import dataclass

JSON = b"application/json"
OCTETS = b"application/octet-stream"

# What answers a request whose body is all there.
Answerer: TypeAlias = Callable[["Request"], Awaitable["Response"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's first line and headers.

    Attributes:
        method: "GET", "POST", …
        target: The path as it was sent, with the query.
        headers: By lower-case name; of headers that stand several times, the last.
        is_local: Whether it came over the unix socket, whose mode says who may use it.
    """

    method: str
    target: str
    headers: Mapping[bytes, bytes]
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is all there: its head and its body."""

    head: Head
    body: bytes | bytearray


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer.

    Attributes:
        status: HTTP status.
        body: Its parts, in order.
        content_type: Of the body.
        headers: Further headers.
    """

    status: int
    body: tuple[bytes | memoryview, ...]
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HttpError(Exception):
    """A request that is refused; its message goes to the caller as `{"error": …}`.

    Attributes:
        status: HTTP status, 400 to 599.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, message: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Site(Protocol):
    """What a server serves."""

    def admit(self, head: Head) -> Answerer:
        """Find what answers a request, before its body is read.

        Raises:
            HttpError: Nothing does, or it may not.
        """


@dataclass(slots=True)
class Traffic:
    """What a server has seen.

    Attributes:
        answers: HTTP status → how many answers had it.
        open_connections: Now.
        refused_connections: Because there were too many.
        held_bytes: Of bodies that are coming or being answered, now.
    """

    answers: dict[int, int] = field(default_factory=dict)
    open_connections: int = 0
    refused_connections: int = 0
    held_bytes: int = 0

    def answered(self, status: int) -> None:
        """Count an answer."""
        self.answers[status] = self.answers.get(status, 0) + 1


def json_response(value: JsonValue, *, status: int = 200) -> Response:
    """An answer of one JSON document."""
    return Response(status=status, body=(render(value),))


def error_response(error: HttpError) -> Response:
    """The answer that an error is."""
    body = render({"error": str(error)})
    return Response(status=error.status, body=(body,), headers=error.headers)
