"""Serving over HTTP, in agent.toml's `[http]`."""

import math
from pathlib import Path

from edgepack.agent.errors import ConfigError
from edgepack.trust.values import dataclass

_MAX_PORT = 65_535
_MAX_SOCKET_PATH_BYTES = 107
_MIN_TOKEN_CHARACTERS = 16
_MAX_TOKEN_CHARACTERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """Where HTTP is served; nowhere when neither `listen` nor `socket` is given.

    Attributes:
        listen: `HOST:PORT` on TCP; beyond loopback only with `token_file` and TLS.
        socket: Path of a unix socket, made with mode 0660; whoever may open it may ask.
        token_file: File whose first line is what callers over TCP must show.
        cert_file, key_file: TLS on TCP: certificate chain and private key, PEM.
        max_body_mb: Largest body of a request, in MB (10^6 bytes).
        max_connections: Open connections.
    """

    listen: str | None = None
    socket: str | None = None
    token_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    max_body_mb: float = 16.0
    max_connections: int = 128

    @property
    def is_on(self) -> bool:
        """Whether there is anything to serve."""
        return self.listen is not None or self.socket is not None


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A parsed `HOST:PORT`."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        import ipaddress  # most devices serve MQTT only

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def listen_address(text: str) -> ListenAddress:
    """Parse `HOST:PORT`; an IPv6 address stands in brackets.

    Raises:
        ConfigError: It is not that.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    whole = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _MAX_PORT
    if not colon or not host or not whole or (":" in host) != bracketed:
        raise ConfigError(f"http.listen must be HOST:PORT, got {text!r}")
    return ListenAddress(host, int(port))


def read_token(path: str) -> bytes:
    """The first line of a token file.

    Raises:
        ConfigError: It cannot be read, or its first line is no token.
    """
    try:
        with Path(path).open(encoding="ascii") as handle:
            token = handle.read(_MAX_TOKEN_CHARACTERS + 2).partition("\n")[0].strip()
    except OSError as exc:
        raise ConfigError(f"http.token_file {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"http.token_file {path} must be ASCII") from exc
    if not _MIN_TOKEN_CHARACTERS <= len(token) <= _MAX_TOKEN_CHARACTERS or " " in token:
        raise ConfigError(
            f"http.token_file {path} must hold a token of {_MIN_TOKEN_CHARACTERS} to "
            f"{_MAX_TOKEN_CHARACTERS} characters without spaces in its first line"
        )
    return token.encode()


def http_problems(config: HttpConfig) -> list[str]:
    """What is wrong with the section, a line each."""
    wrong = []
    if (config.cert_file is None) != (config.key_file is None):
        wrong.append("http.cert_file and http.key_file must stand together")
    if config.listen is not None:
        try:
            address = listen_address(config.listen)
        except ConfigError as exc:
            wrong.append(str(exc))
        else:
            safe = config.token_file is not None and config.cert_file is not None
            if not address.is_loopback and not safe:
                wrong.append(
                    f"http.listen must be on loopback without token_file, cert_file and key_file, "
                    f"got {config.listen!r}"
                )
    elif config.token_file is not None or config.cert_file is not None:
        wrong.append("http.token_file and http.cert_file are for http.listen, which is absent")
    size = len(config.socket.encode()) if config.socket is not None else 0
    if size > _MAX_SOCKET_PATH_BYTES:
        wrong.append(
            f"http.socket must be a path of at most {_MAX_SOCKET_PATH_BYTES} bytes, got {size}"
        )
    if not 0 < config.max_body_mb < math.inf:
        wrong.append(f"http.max_body_mb must be > 0 and finite, got {config.max_body_mb}")
    if config.max_connections < 1:
        wrong.append(f"http.max_connections must be >= 1, got {config.max_connections}")
    return wrong
