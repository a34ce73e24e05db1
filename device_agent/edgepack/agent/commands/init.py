"""`edgepack-agent init`: write agent.toml on a device that nobody else sets up."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edgepack.agent.config import read_config
from edgepack.agent.disk import storage_error
from edgepack.agent.errors import ConfigError
from edgepack.trust.errors import EdgepackError
from edgepack.trust.key_files import read_small, replace_file
from edgepack.trust.root_document import MAX_ROOT_BYTES
from edgepack.wire.device_id import default_device_id
from edgepack.wire.new_agent_toml import DEFAULT_HTTP, NewConfig, new_agent_toml

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_ROOT_NAME = "root.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of init."""
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="root.json, which is copied beside agent.toml (default: the one that is there, "
        "or the question for it)",
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help='mqtt(s)://HOST[:PORT]; "" for none (default: the question for it)',
    )
    parser.add_argument(
        "--username",
        metavar="USER",
        help="whom the broker knows (default: with a password, the device's id)",
    )
    parser.add_argument(
        "--password-file", metavar="FILE", help="its first line is the broker's password"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="who signs the broker's certificate")
    parser.add_argument("--cert-file", metavar="FILE", help="the device's certificate")
    parser.add_argument("--key-file", metavar="FILE", help="its private key")
    parser.add_argument("--prefix", metavar="TOPIC", help="MQTT topic prefix")
    parser.add_argument(
        "--id",
        metavar="ID",
        help=f"the device's id (default here: {own_device_id()})",
    )
    parser.add_argument(
        "--http",
        default=DEFAULT_HTTP,
        metavar="HOST:PORT",
        help='where HTTP is served; "" for nowhere (default: %(default)s)',
    )
    parser.add_argument("--state", metavar="DIR", help="state folder (default: /var/lib/edgepack)")
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a group of this device; again for more",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an agent.toml that is there already"
    )


def run(args: argparse.Namespace) -> int:
    """Write agent.toml, and say what to call next."""
    path: Path = args.config
    if path.exists() and not args.force:
        raise ConfigError(f"{path} is there already; --force replaces it")
    ask = _asker()
    beside = path.parent / _ROOT_NAME
    root = args.root or (None if beside.exists() else ask("root.json of your workstation", "FILE"))
    broker = args.broker if args.broker is not None else ask("URL of the broker, or nothing", "")
    new = NewConfig(
        device=args.id or own_device_id(),
        state=_absolute(args.state),
        broker=broker or None,
        username=args.username,
        password_file=_absolute(args.password_file),
        ca_file=_absolute(args.ca_file),
        cert_file=_absolute(args.cert_file),
        key_file=_absolute(args.key_file),
        prefix=args.prefix,
        http=args.http or None,
        tags=_tags(args.tag),
    )
    root_data = _root(Path(root) if root else beside)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise storage_error(path.parent, exc) from exc
    _write_checked(path, new_agent_toml(new))
    replace_file(beside, root_data, mode=0o644)
    option = "" if str(path) == "/etc/edgepack/agent.toml" else f" --config {path}"
    print(f"{path}: device {new.device}, {new.broker or 'no broker'}")
    print(f"next: edgepack-agent doctor{option}; edgepack-agent run{option}")
    return 0


def own_device_id() -> str:
    """The default id of this device."""
    for name in _MACHINE_IDS:
        try:
            with Path(name).open(encoding="ascii") as handle:
                return default_device_id(platform.node(), handle.read(64))
        except (OSError, ValueError):
            continue
    return default_device_id(platform.node(), "")


def _write_checked(path: Path, text: str) -> None:
    """Put it in place only once the agent would take it."""
    trial = path.with_name(f".{path.name}.new")
    replace_file(trial, text.encode(), mode=0o644)
    try:
        read_config(trial)
        trial.replace(path)
    except ConfigError as exc:
        raise ConfigError(str(exc).replace(trial.name, path.name)) from exc
    except OSError as exc:
        raise storage_error(path, exc) from exc
    finally:
        trial.unlink(missing_ok=True)


def _root(path: Path) -> bytes:
    from edgepack.trust import Root

    try:
        data = read_small(path, max_bytes=MAX_ROOT_BYTES)
        Root.parse(data)
    except EdgepackError as exc:
        raise ConfigError(
            f"--root must name the root.json that `edgepack keygen` made on the workstation: {exc}"
        ) from exc
    return data


def _tags(texts: Sequence[str]) -> dict[str, str]:
    tags = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--tag must be KEY=VALUE, got {text[:80]!r}")
        tags[key] = value
    return tags


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # noqa: PTH100 (links stay links)


def _asker() -> Callable[[str, str], str]:
    """Asks a person; without one the answer is empty."""
    interactive = sys.stdin.isatty()

    def ask(question: str, example: str) -> str:
        if not interactive:
            return ""
        sys.stderr.write(f"{question}{f' ({example})' if example else ''}: ")
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    return ask
