"""Requests to one registry with the right Authorization: credentials and tokens, never shown."""

import contextlib
from collections.abc import Iterator, Mapping

from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse
from edgepack.trust.values import dataclass
from edgepack.wire.errors import TransferError, UnauthorizedError, WireError
from edgepack.wire.http.client import Body, HttpClient, Response
from edgepack.wire.http.credentials import Credentials
from edgepack.wire.http.url import HttpUrl, is_loopback, parse_url, redirected
from edgepack.wire.oci.challenge import Challenge, parse_challenge, token_url
from edgepack.wire.oci.reference import Reference

_MAX_TOKEN_BYTES = 256 * 1024
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    token: str = ""
    access_token: str = ""


class Session:
    """Talks to the registry of one reference.

    Args:
        client: Sends requests.
        reference: Registry and repository.
        credentials: By server.
        plain_http: Registries (HOST or HOST:PORT) that are spoken to without TLS; those on
            loopback always are.
    """

    def __init__(
        self,
        client: HttpClient,
        reference: Reference,
        credentials: Credentials,
        plain_http: tuple[str, ...] = (),
    ) -> None:
        self._client = client
        self._credentials = credentials
        url = parse_url(f"https://{reference.host}/")
        known = not {reference.host, url.host}.isdisjoint(plain_http)
        self._plain = known or is_loopback(url.host)
        scheme = "http" if self._plain else "https"
        self._root = parse_url(f"{scheme}://{reference.host}/v2/{reference.repository}/")
        self._authorization: str | None = None

    def url(self, path: str) -> HttpUrl:
        """The URL of something in the repository: "blobs/sha256:…"."""
        return parse_url(self._root.full + path)

    def location(self, base: HttpUrl, location: str) -> HttpUrl:
        """Where the registry wants an upload to go: on itself.

        Raises:
            TransferError: Elsewhere.
        """
        try:
            target = redirected(base, location)
        except WireError as exc:
            raise TransferError(str(exc)) from exc
        if (target.host, target.port) != (self._root.host, self._root.port):
            raise TransferError(f"{base.shown} sends an upload elsewhere: {target.authority}")
        return target

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: HttpUrl,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        body_bytes: int = 0,
    ) -> Iterator[Response]:
        """Ask with the authorization that the registry wants; see `HttpClient.request`.

        A body in pieces is sent only once: ask for something small first.

        Raises:
            UnauthorizedError: It does not take our credentials, or we have none.
            TransferError: As `HttpClient.request`.
        """
        for last in (False, True):
            said = dict(headers or {})
            if self._authorization is not None:
                said["Authorization"] = self._authorization
            with self._client.request(
                method, url, headers=said, body=body, body_bytes=body_bytes
            ) as response:
                if response.status != _UNAUTHORIZED:
                    yield response
                    return
                if last or not isinstance(body, bytes | None):
                    raise UnauthorizedError(f"{self._root.authority} wants other credentials")
                header = response.header("WWW-Authenticate") or ""
            self._authorization = self._authorize(header, said.get("Authorization"))

    def _authorize(self, header: str, tried: str | None) -> str:
        try:
            challenge = parse_challenge(header)
        except WireError as exc:
            raise UnauthorizedError(f"{self._root.shown}: {exc}") from exc
        if challenge.scheme == "bearer":
            return f"Bearer {self._token(challenge)}"
        basic = self._basic()
        if challenge.scheme != "basic" or basic is None or basic == tried:
            wants = "other credentials" if basic else "credentials"
            raise UnauthorizedError(
                f"{self._root.authority} wants {wants} ({challenge.scheme[:20]})"
            )
        return basic

    def _token(self, challenge: Challenge) -> str:
        try:
            url = token_url(challenge)
        except WireError as exc:
            raise UnauthorizedError(f"{self._root.authority}: {exc}") from exc
        if url.scheme == "http" and not (self._plain or is_loopback(url.host)):
            raise UnauthorizedError(
                f"{self._root.authority}: token server {url.shown} is not https"
            )
        basic = self._basic()
        headers = {} if basic is None else {"Authorization": basic}
        with self._client.request("GET", url, headers=headers) as response:
            response.expect(200)
            body = response.read_all(_MAX_TOKEN_BYTES, "token")
        try:
            value = parse(body, what="token", max_bytes=_MAX_TOKEN_BYTES)
            found = decode(_Token, value, what="token", ignore_unknown=True)
        except DocumentError:
            found = _Token()
        token = found.token or found.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise UnauthorizedError(f"{url.shown} gave no token")
        return token

    def _basic(self) -> str | None:
        return self._credentials.basic(self._root.host, self._root.port)
