"""URLs that may be fetched, and how they are shown: without user, password and query. Pure."""

import ipaddress
import re
from urllib.parse import unquote, urljoin, urlsplit

from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_TARGET = re.compile(r"[!-~]*")
_MAX_URL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpUrl:
    """A parsed http(s) URL.

    Attributes:
        scheme: "http" or "https".
        host: Name or address, without brackets.
        port: TCP port.
        target: Path and query, what a server is asked for.
        user, password: From the URL; sent, never shown.
    """

    scheme: str
    host: str
    port: int
    target: str
    user: str | None = None
    password: str | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom it talks to: credentials and connections belong to one origin."""
        return (self.scheme, self.host, self.port)

    @property
    def authority(self) -> str:
        """HOST or HOST:PORT, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL without what may be secret."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"

    @property
    def full(self) -> str:
        """The URL as a proxy is asked for it; may hold a secret query."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> HttpUrl:
    """Parse an http(s) URL.

    Raises:
        WireError: It is none; the message tells no secret.
    """
    if len(text) > _MAX_URL:
        raise WireError(f"URL must be at most {_MAX_URL} characters, got {len(text)}")
    scheme = text.partition(":")[0].lower()
    if scheme not in _PORTS:
        raise WireError(f"URL must be http(s)://…, got {scheme[:20]!r}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:  # its text may hold a password
        raise WireError(f"{scheme}://… is not a URL that can be fetched") from exc
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _HOST.fullmatch(host) or not _TARGET.fullmatch(target) or port == 0:
        raise WireError(f"{scheme}://… is not a URL that can be fetched")
    return HttpUrl(
        scheme=scheme,
        host=host,
        port=port or _PORTS[scheme],
        target=target,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def redirected(url: HttpUrl, location: str) -> HttpUrl:
    """Where a redirect leads.

    Raises:
        WireError: To another scheme, from https to http, or to a URL with a user in it.
    """
    try:
        target = parse_url(urljoin(url.full, location))
    except (ValueError, WireError) as exc:
        raise WireError(f"{url.shown} redirects to what cannot be fetched: {exc}") from exc
    if url.scheme == "https" and target.scheme == "http":
        raise WireError(f"{url.shown} redirects from https to http")
    if target.user is not None or target.password is not None:
        raise WireError(f"{url.shown} redirects to a URL with a user in it")
    return target


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
