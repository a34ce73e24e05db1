"""What people do not want to type every time: flags, then environment, then a file.

`$XDG_CONFIG_HOME/edgepack/config.toml` (or `~/.config/edgepack/config.toml`) may hold `broker`,
`keys`, `root` and `prefix`; an unknown key is an error.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.cli.errors import UsageError
from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.trust.generate import ROOT_FILE
from edgepack.wire.topics import DEFAULT_PREFIX

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
MAX_CONFIG_BYTES = 64 * 1024
_NAMES = ("broker", "keys", "root", "prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """config.toml; paths in it are relative to its folder.

    Attributes:
        broker: URL of the broker.
        keys: Folder of the private keys.
        root: The root of trust, root.json.
        prefix: MQTT topic prefix.
    """

    broker: str | None = None
    keys: str | None = None
    root: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for this call.

    Attributes:
        broker: URL of the broker; may hold a password.
        keys: Folder of the private keys.
        named_keys: Whether somebody named that folder, or it is the default.
        root: The root of trust.
        prefix: MQTT topic prefix.
    """

    broker: str
    keys: Path
    named_keys: bool
    root: Path
    prefix: str


def config_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the user's configuration is."""
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "edgepack"


def settings(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Bring flags, environment and file together.

    Args:
        args: May have `broker`, `keys`, `root` and `prefix`.
        environment: `EDGEPACK_BROKER`, `EDGEPACK_KEYS`, `EDGEPACK_ROOT`, `EDGEPACK_PREFIX`.

    Raises:
        UsageError: The file cannot be read, or has a wrong or unknown key.
    """
    folder = config_folder(environment)
    file = read_config(folder / "config.toml")
    found: dict[str, str] = {}
    for name in _NAMES:
        flag = getattr(args, name, None)
        value = flag or environment.get(f"EDGEPACK_{name.upper()}") or getattr(file, name)
        if value:
            found[name] = str(value)
    keys = Path(found.get("keys", folder / "keys"))
    return Settings(
        broker=found.get("broker", DEFAULT_BROKER),
        keys=keys,
        named_keys="keys" in found,
        root=Path(found["root"]) if "root" in found else keys / ROOT_FILE,
        prefix=found.get("prefix", DEFAULT_PREFIX),
    )


def read_config(path: Path) -> ConfigFile:
    """Read config.toml; a file that is not there is empty.

    Raises:
        UsageError: It cannot be read, or has a wrong or unknown key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return ConfigFile()
    except OSError as exc:
        raise UsageError(f"configuration {path} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"configuration {path} must be at most {MAX_CONFIG_BYTES} bytes, got more")
    try:
        value = tomllib.loads(data.decode())
        config = decode(ConfigFile, value, what=str(path), ignore_unknown=False)
    except DocumentError as exc:
        raise UsageError(str(exc), hint=f"known keys: {', '.join(_NAMES)}") from exc
    except ValueError as exc:
        raise UsageError(f"configuration {path} is not TOML: {exc}") from exc
    return ConfigFile(
        broker=config.broker,
        keys=_beside(path, config.keys),
        root=_beside(path, config.root),
        prefix=config.prefix,
    )


def add_broker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --broker and --prefix."""
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="mqtt://[USER:PASSWORD@]HOST[:PORT] or mqtts://…[?cafile=&certfile=&keyfile=], over "
        "WebSocket ws://…[/PATH] or wss://… "
        f"(default: $EDGEPACK_BROKER, config.toml, {DEFAULT_BROKER})",
    )
    parser.add_argument(
        "--prefix",
        metavar="TOPIC",
        help=f"MQTT topic prefix (default: $EDGEPACK_PREFIX, config.toml, {DEFAULT_PREFIX})",
    )


def add_keys_argument(parser: argparse.ArgumentParser) -> None:
    """Add --keys."""
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="folder of the private keys, as keygen makes it "
        "(default: $EDGEPACK_KEYS, config.toml, ~/.config/edgepack/keys)",
    )


def add_root_argument(parser: argparse.ArgumentParser) -> None:
    """Add --root."""
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="root of trust (default: $EDGEPACK_ROOT, config.toml, root.json among the keys)",
    )


def _beside(path: Path, value: str | None) -> str | None:
    return None if value is None else str(path.parent / Path(value).expanduser())
