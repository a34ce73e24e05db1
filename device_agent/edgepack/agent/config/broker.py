"""Where the broker is, in agent.toml's `[broker]`."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgepack.agent.errors import ConfigError
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """Where the broker is.

    Attributes:
        url: `mqtt://HOST[:PORT]` or `mqtts://…`, or over WebSocket `ws://HOST[:PORT][/PATH]` or
            `wss://…`; absent: the agent works alone.
        username: User name, if the broker wants one.
        password_file: File whose first line is the password; never in agent.toml itself.
        ca_file, cert_file, key_file: TLS: who signs the broker, and this device's certificate.
        keepalive_s: Seconds between signs of life.
        session_s: How long the broker keeps what comes for this device while it is away, in
            seconds; 0: not at all.
    """

    url: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keepalive_s: int = 240
    session_s: int = 300


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A parsed broker URL; `path` is that of a WebSocket, or None without one."""

    host: str
    port: int
    tls: bool
    path: str | None = None


_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_DEFAULT_PATH = "/mqtt"


def broker_address(url: str) -> BrokerAddress:
    """Parse `mqtt://HOST[:PORT]`, `mqtts://…`, `ws://HOST[:PORT][/PATH]` or `wss://…`.

    Raises:
        ConfigError: It is not such a URL, or carries a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"broker url has a wrong port: {exc}") from exc
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ConfigError(
            f"broker url must be mqtt(s)://HOST[:PORT] or ws(s)://HOST[:PORT][/PATH], "
            f"got {parts.scheme}://…"
        )
    if parts.username or parts.password:
        raise ConfigError(
            "broker url must not hold a user or password: use username, password_file"
        )
    is_socket = parts.scheme in ("ws", "wss")
    if not is_socket and parts.path.strip("/"):
        raise ConfigError(f"broker url must have no path with {parts.scheme}, got {parts.path!r}")
    path = f"{parts.path or _DEFAULT_PATH}{'?' if parts.query else ''}{parts.query}"
    return BrokerAddress(
        unquote(parts.hostname),
        port or _DEFAULT_PORTS[parts.scheme],
        parts.scheme in ("mqtts", "wss"),
        path if is_socket else None,
    )


def read_password(path: str) -> str:
    """The first line of a password file.

    Raises:
        ConfigError: It cannot be read or is empty.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8")[:4096].splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"password_file {path} cannot be read") from exc
    if not lines or not lines[0]:
        raise ConfigError(f"password_file {path} must hold a password in its first line")
    return lines[0]
