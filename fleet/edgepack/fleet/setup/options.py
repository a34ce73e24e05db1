"""What the caller wants of every host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.fleet.setup.secret_files import SecretSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How ssh logs in.

    Attributes:
        port: TCP port; None for ssh's own choice.
        identity: Private key file; None for ssh's own choice.
        config: ssh's configuration file; None for the user's.
        timeout_s: Seconds for a connection.
    """

    port: int | None = None
    identity: Path | None = None
    config: Path | None = None
    timeout_s: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What shall stand in agent.toml; None is "as it is, or the default".

    Attributes:
        device: The device's id.
        prefix: MQTT topic prefix.
        tags: Groups of the device; those that it has besides stay.
        broker: `mqtt(s)://HOST:PORT`, without a user and a password.
        username: For the broker.
        http: Where HTTP is served, `HOST:PORT`; "" for nowhere.
    """

    device: str | None = None
    prefix: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    broker: str | None = None
    username: str | None = None
    http: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupOptions:
    """What the caller wants.

    Attributes:
        root: The root of trust, root.json.
        wanted: agent.toml.
        secrets: Where passwords and certificates are.
        login: How ssh logs in.
        engines: Distributions of engines; empty: what fits the platform.
        jobs: Hosts at the same time.
        timeout_s: Seconds in which an agent must reach the broker.
        start: Whether the agent is started and waited for.
        dry_run: Look and get wheels, change nothing.
        refresh: Ask the package index again instead of taking the wheels of last time.
        cache: Folder for wheels.
    """

    root: bytes
    cache: Path
    wanted: Wanted = field(default_factory=Wanted)
    secrets: SecretSource = field(default_factory=SecretSource)
    login: Login = field(default_factory=Login)
    engines: tuple[str, ...] = ()
    jobs: int = 8
    timeout_s: float = 90.0
    start: bool = True
    dry_run: bool = False
    refresh: bool = False
