"""Users and passwords by server, in the file that `docker login` writes.

`{"auths": {"registry.example:5000": {"auth": "BASE64 OF USER:PASSWORD"}}}`. Never logged: the
values show as dots.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    auth: str | None = None
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    auths: dict[str, _Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Basic credentials by server.

    Attributes:
        by_host: "HOST" or "HOST:PORT" → value of an Authorization header.
    """

    by_host: Mapping[str, str] = field(default_factory=dict, repr=False)

    def basic(self, host: str, port: int) -> str | None:
        """The Authorization header for a server, or None."""
        return self.by_host.get(f"{host}:{port}") or self.by_host.get(host)


def basic_header(user: str, password: str) -> str:
    """An Authorization header of RFC 7617."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def read_credentials(path: Path) -> Credentials:
    """Read such a file.

    Raises:
        WireError: It cannot be read or is not such a file; the message tells no secret.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise WireError(f"credentials {path} cannot be read: {exc.strerror}") from exc
    try:
        value = parse(data, what=path.name, max_bytes=_MAX_BYTES)
        found = decode(_File, value, what=path.name, ignore_unknown=True)
    except DocumentError:
        # its text may show a value
        raise WireError(f'credentials {path} must be JSON: {{"auths": {{HOST: …}}}}') from None
    return Credentials(
        {_host(key): header for key, entry in found.auths.items() if (header := _header(entry))}
    )


def _host(key: str) -> str:
    """`docker login` writes "https://index.docker.io/v1/" as well as "registry:5000"."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _header(entry: _Entry) -> str | None:
    if entry.auth:
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).partition(b":")
            if colon:
                return basic_header(user.decode(), password.decode())
        except (binascii.Error, UnicodeDecodeError):
            return None
    if entry.username is not None and entry.password is not None:
        return basic_header(entry.username, entry.password)
    return None
