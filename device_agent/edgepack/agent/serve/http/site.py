"""What stands under which path, who may ask for it, and which errors mean which status."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import unquote

from edgepack.agent.errors import BusyError, UnknownModelError
from edgepack.agent.serve.http.access import Access
from edgepack.agent.serve.http.bodies import check_body
from edgepack.agent.serve.http.messages import Answerer, Head, HttpError, Request, Response
from edgepack.runtime import InputError
from edgepack.trust.errors import DocumentError, EdgepackError
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

logger = logging.getLogger(__name__)

Endpoint: TypeAlias = Callable[..., Awaitable[Response]]
_ANY: Final = "*"
_MAX_TARGET: Final = 2048
_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class Route:
    """One path.

    Attributes:
        method: "GET" (which answers HEAD as well) or "POST".
        path: Its segments; "*" stands for any one without a colon, whose value goes to `names`,
            and "*:word" for one that ends so.
        endpoint: What answers, with the request and the values by name.
        names: Of the "*" in `path`, in order.
        is_public: Whether it needs no token.
    """

    method: str
    path: tuple[str, ...]
    endpoint: Endpoint
    names: tuple[str, ...] = ()
    is_public: bool = False

    def values(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """What stands for each "*", or None where the path is another one."""
        if len(segments) != len(self.path):
            return None
        found = []
        for segment, expected in zip(segments, self.path, strict=True):
            if expected.startswith(_ANY):
                value = segment.removesuffix(expected[1:])
                if ":" in value or value + expected[1:] != segment:
                    return None
                found.append(value)
            elif segment != expected:
                return None
        return dict(zip(self.names, found, strict=True))


_Found: TypeAlias = list[tuple[Route, dict[str, str]]]


class RoutedSite:
    """Routes requests to endpoints.

    Args:
        routes: Paths, in order.
        access: Who may ask.
    """

    def __init__(self, routes: list[Route], access: Access) -> None:
        self._routes = routes
        self._found: dict[str, _Found] = {}  # callers ask for the same few paths again and again
        self._access = access

    def admit(self, head: Head) -> Answerer:
        """Find what answers a request, before its body is read.

        Raises:
            HttpError: Nothing does (404, 405), the caller may not (401, 403), or its body is of a
                kind that nobody reads (415).
        """
        found = self._found.get(head.target)
        if found is None:
            found = self._find(head.target)
        if not all(route.is_public for route, _ in found) or not found:
            self._access.check(head)
        if not found:
            raise HttpError(404, f"there is nothing at {head.target[:200]}")
        method = "GET" if head.method == "HEAD" else head.method
        for route, values in found:
            if route.method == method:
                if method == "POST":
                    check_body(head)
                return partial(_answered, route.endpoint, values)
        allowed = sorted({route.method for route, _ in found})
        raise HttpError(
            405,
            f"method must be {' or '.join(allowed)}, got {head.method[:20]}",
            headers=((b"Allow", ", ".join(allowed).encode()),),
        )

    def _find(self, target: str) -> _Found:
        segments = _segments(target)
        found = [
            (route, values)
            for route in self._routes
            if (values := route.values(segments)) is not None
        ]
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[target] = found
        return found


async def _answered(endpoint: Endpoint, values: dict[str, str], request: Request) -> Response:
    """Have an endpoint answer; its errors get their status."""
    try:
        return await endpoint(request, **values)
    except (WireError, InputError, DocumentError) as exc:
        raise HttpError(400, str(exc)) from exc
    except UnknownModelError as exc:
        raise HttpError(404, str(exc)) from exc
    except BusyError as exc:
        raise HttpError(503, str(exc), headers=((b"Retry-After", b"1"),)) from exc
    except EdgepackError as exc:  # the model's engine: what was asked was right
        raise HttpError(500, str(exc)) from exc


def _segments(target: str) -> tuple[str, ...]:
    if len(target) > _MAX_TARGET:
        raise HttpError(414, f"path must have at most {_MAX_TARGET} characters")
    path = target.partition("?")[0]
    if not path.startswith("/"):  # a proxy's form: http://HOST/path
        path = "/" + path.partition("://")[2].partition("/")[2]
    segments = path.split("/")[1:]
    if segments and segments[-1] == "":
        segments.pop()
    return tuple(unquote(segment) if "%" in segment else segment for segment in segments)
