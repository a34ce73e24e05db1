"""What a registry wants to hear: `WWW-Authenticate` of RFC 9110, docker's tokens. Pure."""

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.http.url import HttpUrl, parse_url

_MAX_HEADER = 4096
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)\s*")
_PARAMETER = re.compile(
    r'\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*,?'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge.

    Attributes:
        scheme: "basic" or "bearer", lower-case, or another.
        parameters: "realm", "service", "scope", …
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """Parse the first challenge of a header.

    Raises:
        WireError: It is none.
    """
    start = _SCHEME.match(header[:_MAX_HEADER])
    if start is None or len(header) > _MAX_HEADER:
        raise WireError(f"WWW-Authenticate makes no sense: {header[:40]!r}")
    parameters: dict[str, str] = {}
    at = start.end()
    while found := _PARAMETER.match(header, at):
        name, quoted, plain = found.groups()
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        parameters.setdefault(name.lower(), value)
        at = found.end()
    return Challenge(scheme=start[1].lower(), parameters=parameters)


def token_url(challenge: Challenge) -> HttpUrl:
    """Where a bearer token is asked for.

    Raises:
        WireError: The challenge names no place that can be asked.
    """
    try:
        realm = parse_url(challenge.parameters.get("realm", ""))
    except WireError as exc:
        raise WireError(f"token server: {exc}") from exc
    known = {
        name: challenge.parameters[name]
        for name in ("service", "scope")
        if name in challenge.parameters
    }
    query = urlencode(known)
    joint = "&" if "?" in realm.target else "?"
    return HttpUrl(
        scheme=realm.scheme,
        host=realm.host,
        port=realm.port,
        target=f"{realm.target}{joint}{query}" if query else realm.target,
    )
