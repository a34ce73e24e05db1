"""The server that is asked: one connection, plain or TLS or a unix socket."""

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from edgepack.fleet.errors import TargetError
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.errors import TransferError

_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> JsonValue:
        """The body as JSON, or None where it is none."""
        try:
            value: JsonValue = json.loads(self.body)
        except ValueError:
            return None
        return value

    def object(self) -> dict[str, JsonValue]:
        """The body as a JSON object; empty where it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}


class Peer:
    """Asks a server.

    Args:
        url: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
        token: Shown as a bearer token, if there is one.
        ca_file: Who signs the server, for https.

    Raises:
        TargetError: The URL is none of these.
    """

    def __init__(self, url: str, *, token: str | None = None, ca_file: str | None = None) -> None:
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._connection = _connection(url, ca_file)
        self.url = url

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; the connection is kept.

        Raises:
            TransferError: The server cannot be reached or breaks off.
        """
        named = {**self._headers, **(headers or {})}
        for is_last in (False, True):
            try:
                self._connection.request(method, path, body, named)
                answer = self._connection.getresponse()
                data = answer.read(_MAX_ANSWER_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                self._connection.close()
                # a server may close a connection that was idle, or that had an error
                if is_last or isinstance(exc, TimeoutError | ConnectionRefusedError):
                    raise TransferError(
                        f"{self.url} broke off: {exc or type(exc).__name__}"
                    ) from exc
            else:
                found = {name.lower(): value for name, value in answer.getheaders()}
                return Reply(answer.status, found, data)
        raise AssertionError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        with contextlib.ExitStack() as stack:
            door = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            door.settimeout(_TIMEOUT_S)
            door.connect(self._path)
            stack.pop_all()
        self.sock = door


def _connection(url: str, ca_file: str | None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return _UnixConnection(parts.path)
    try:
        port = parts.port
    except ValueError as exc:
        raise TargetError(f"url has a wrong port: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise TargetError(f"url must be http(s)://HOST:PORT or unix:PATH, got {url!r}")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise TargetError(f"ca_file {ca_file} cannot be used: {exc}") from exc
    return http.client.HTTPSConnection(parts.hostname, port, timeout=_TIMEOUT_S, context=context)
