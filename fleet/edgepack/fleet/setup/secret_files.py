"""Passwords and certificates on the workstation: read for each host, never shown."""

from dataclasses import dataclass, field
from pathlib import Path

from edgepack.fleet.setup.errors import SettingsError

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFiles:
    """Contents.

    Attributes:
        password: One line, without its end.
        ca, cert, key: PEM.
    """

    password: bytes | None = field(default=None, repr=False)
    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """Where they are; `{host}` and `{id}` in a path stand for the host's name and its device id.

    Attributes:
        password: A password that somebody typed, for every host.
        password_file: Its first line is the password.
        ca_file: Who signs the broker's certificate.
        cert_file, key_file: The device's certificate and key.
        sudo_password: What sudo is told there, typed by somebody, for every host.
        sudo_password_file: Its first line is that; `{host}` as above.
    """

    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    sudo_password: str | None = field(default=None, repr=False)
    sudo_password_file: str | None = None

    def sudo(self, *, host: str) -> str | None:
        """What sudo is told on a host that asks; None where nobody said.

        Raises:
            SettingsError: The file cannot be read, or its first line is no password.
        """
        password = self.sudo_password
        if self.sudo_password_file is not None:
            path = Path(self.sudo_password_file.replace("{host}", host))
            try:
                password = _read(path).decode().partition("\n")[0].removesuffix("\r")
            except UnicodeDecodeError as exc:
                raise SettingsError(f"{path} must be UTF-8") from exc
        if password is not None and (not password or "\0" in password):
            raise SettingsError("sudo's password must not be empty or hold a NUL")
        return password

    def read(self, *, host: str, device: str) -> SecretFiles:
        """Read those of one host.

        Raises:
            SettingsError: One cannot be read, or is empty or too large.
        """

        def content(path: str | None) -> bytes | None:
            if path is None:
                return None
            return _read(Path(path.replace("{host}", host).replace("{id}", device)))

        password = self.password.encode() if self.password is not None else None
        if self.password_file is not None:
            lines = (content(self.password_file) or b"").splitlines()
            password = lines[0] if lines else b""
        if password == b"":
            raise SettingsError("the broker's password must not be empty")
        return SecretFiles(
            password=password,
            ca=content(self.ca_file),
            cert=content(self.cert_file),
            key=content(self.key_file),
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    if not 0 < len(data) <= _MAX_BYTES:
        raise SettingsError(f"{path} must have 1 to {_MAX_BYTES} bytes, got {len(data)}")
    return data
