"""agent.toml of a device: a new one, or the one that is there with what the caller asks for.

Keys that nobody named, comments and order stay as they are. A device keeps its id: another one
would be another device, with another history.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from edgepack.fleet.setup.errors import SettingsError
from edgepack.fleet.setup.options import Wanted
from edgepack.fleet.setup.secret_files import SecretFiles
from edgepack.wire.new_agent_toml import DEFAULT_HTTP, NewConfig, new_agent_toml

ROOT_NAME = "root.json"
PASSWORD_NAME = "mqtt-password"  # noqa: S105 (the name of a file)
CA_NAME, CERT_NAME, KEY_NAME = "broker-ca.pem", "client.pem", "client.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentToml:
    """A configuration.

    Attributes:
        text: The whole file.
        device: The device's id; None where the host name is it.
        has_broker: Whether it names a broker.
        changed: Names of the keys that are new or different, such as `broker.url`.
    """

    text: str
    device: str | None
    has_broker: bool
    changed: tuple[str, ...]


def agent_toml(
    old: bytes | None, wanted: Wanted, files: SecretFiles, *, default_device: str | None
) -> AgentToml:
    """Write agent.toml.

    Args:
        old: What is there, or None.
        wanted: What the caller asks for.
        files: Which of them come along.
        default_device: The id of a new device that nobody named; None leaves it out.

    Raises:
        SettingsError: The old one is not TOML, or the device has another id.
    """
    if old is None:
        return _new(wanted, files, wanted.device or default_device)
    document = _parsed(old)
    device = document.get("device")
    if wanted.device is not None and device != wanted.device:
        raise SettingsError(
            f"this device is {device or 'known by its host name'}, and --id {wanted.device} would "
            "make another one of it",
            hint="`edgepack-agent uninstall --purge` on it first, or leave --id out",
        )
    top = {"prefix": wanted.prefix, "root": None if "root" in document else ROOT_NAME}
    has_user = "username" in document.get("broker", {})
    username = wanted.username
    if username is None and files.password is not None and not has_user and device is not None:
        username = str(device)
    broker = {"url": wanted.broker, "username": username, **_file_names(files)}
    changed = _set(document, top, "")
    changed += _set_table(document, "tags", wanted.tags)
    changed += _set_table(document, "broker", broker)
    changed += _set_table(document, "http", {"listen": wanted.http})
    return AgentToml(
        text=tomlkit.dumps(document) if changed else old.decode(),
        device=None if device is None else str(device),
        has_broker="url" in document.get("broker", {}),
        changed=tuple(changed),
    )


def _new(wanted: Wanted, files: SecretFiles, device: str | None) -> AgentToml:
    text = new_agent_toml(
        NewConfig(
            device=device,
            root=ROOT_NAME,
            broker=wanted.broker,
            username=wanted.username,
            prefix=wanted.prefix,
            http=DEFAULT_HTTP if wanted.http is None else wanted.http or None,
            tags=wanted.tags,
            **_file_names(files),
        )
    )
    return AgentToml(
        text=text,
        device=device,
        has_broker=wanted.broker is not None,
        changed=tuple(_keys(tomlkit.parse(text).unwrap())),
    )


def _file_names(files: SecretFiles) -> dict[str, str | None]:
    return {
        "password_file": PASSWORD_NAME if files.password is not None else None,
        "ca_file": CA_NAME if files.ca is not None else None,
        "cert_file": CERT_NAME if files.cert is not None else None,
        "key_file": KEY_NAME if files.key is not None else None,
    }


def _keys(table: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _parsed(old: bytes) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(old.decode())
    except (TOMLKitError, UnicodeDecodeError) as exc:
        raise SettingsError(f"agent.toml on the host is not TOML: {exc}") from exc
    for name in ("tags", "broker", "http"):
        if not isinstance(document.get(name, {}), Mapping):
            raise SettingsError(f"agent.toml on the host: {name} must be a table")
    return document


def _set(
    table: tomlkit.TOMLDocument | Table, values: Mapping[str, str | None], prefix: str
) -> list[str]:
    changed = []
    for key, value in values.items():
        if value is None or table.get(key, "") == value:
            continue
        if value:
            table[key] = value
        else:
            del table[key]
        changed.append(f"{prefix}{key}")
    return changed


def _set_table(
    document: tomlkit.TOMLDocument, name: str, values: Mapping[str, str | None]
) -> list[str]:
    values = {key: value for key, value in values.items() if value is not None}
    if not values:
        return []
    if name not in document:
        document[name] = tomlkit.table()
    table = document[name]
    assert isinstance(table, Table)
    return _set(table, values, f"{name}.")
