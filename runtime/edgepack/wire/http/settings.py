"""How the client reaches servers. Values only."""

from edgepack.trust.values import dataclass

USER_AGENT = "edgepack"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What holds for all requests of a client.

    Attributes:
        ca_file: PEM file of authorities that are trusted besides the system's.
        proxy: `http://[USER:PASSWORD@]HOST[:PORT]`, "" for none, None for what the environment
            says (`http_proxy`, `https_proxy`, `no_proxy`).
        connect_s: Seconds in which a connection must stand.
        stall_s: Seconds of waiting in which `stall_bytes` must come.
        stall_bytes: Less than this in `stall_s` counts as stalled: 100 bytes a second.
        redirects: How many are followed.
    """

    ca_file: str | None = None
    proxy: str | None = None
    connect_s: float = 15.0
    stall_s: float = 30.0
    stall_bytes: int = 3000
    redirects: int = 5
