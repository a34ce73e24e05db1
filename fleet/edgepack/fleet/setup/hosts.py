"""What a person types for a host, and nothing else: no word of it can become an option of ssh."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.fleet.setup.errors import HostNameError

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# a name, an alias of ssh's configuration, or an address; ssh hands it on to ProxyCommand's shell
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9a-fA-F:.]{2,45}(%[A-Za-z0-9]{1,15})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where to log in.

    Attributes:
        user: As whom; None for ssh's own choice.
        name: Name, address or alias.
    """

    user: str | None
    name: str

    def __str__(self) -> str:
        return self.name if self.user is None else f"{self.user}@{self.name}"


def parse_host(text: str) -> Host:
    """Parse `[USER@]HOST`; an IPv6 address may stand in brackets.

    Raises:
        HostNameError: It is not that.
    """
    user, at, name = text.rpartition("@")
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(name):
        raise HostNameError(f"host must be [USER@]HOST, got {text[:80]!r}")
    return Host(user=user if at else None, name=name)


def parse_hosts(texts: Sequence[str]) -> tuple[Host, ...]:
    """Parse several; each may be named once.

    Raises:
        HostNameError: One is wrong, or named twice.
    """
    hosts = tuple(parse_host(text) for text in texts)
    twice = sorted({str(host) for host in hosts if hosts.count(host) > 1})
    if twice:
        raise HostNameError(f"each host may be named once, got {', '.join(twice)} again")
    return hosts
