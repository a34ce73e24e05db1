"""agent.toml, as values. An unknown key is an error: it is a typing mistake.

A section with rules of its own has a module here; `checks.problems` asks all of them.
"""

import os
import platform
import re
import tomllib
from dataclasses import field, replace
from pathlib import Path

from edgepack.agent.config import actions, inputs
from edgepack.agent.config.actions import ActionConfig
from edgepack.agent.config.broker import (
    BrokerAddress,
    BrokerConfig,
    broker_address,
    read_password,
)
from edgepack.agent.config.checks import MAX_ATTEMPTS, problems
from edgepack.agent.config.http import HttpConfig
from edgepack.agent.config.inputs import InputConfig
from edgepack.agent.config.outbox import OutboxConfig
from edgepack.agent.config.sections import (
    DriftConfig,
    FetchConfig,
    LimitsConfig,
    LogConfig,
    MetricsConfig,
    PredictionRule,
    PredictionsConfig,
    ProbationConfig,
    Publish,
    ShadowConfig,
    TruthsConfig,
)
from edgepack.agent.errors import ConfigError
from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.trust.values import dataclass
from edgepack.wire.topics import DEFAULT_PREFIX

__all__ = [
    "MAX_ATTEMPTS",
    "ActionConfig",
    "AgentConfig",
    "BrokerAddress",
    "BrokerConfig",
    "DriftConfig",
    "FetchConfig",
    "HttpConfig",
    "InputConfig",
    "LimitsConfig",
    "LogConfig",
    "MetricsConfig",
    "OutboxConfig",
    "PredictionRule",
    "PredictionsConfig",
    "ProbationConfig",
    "Publish",
    "ShadowConfig",
    "TruthsConfig",
    "broker_address",
    "read_config",
    "read_password",
]

MAX_CONFIG_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """The whole of agent.toml.

    Attributes:
        device: The device's id; the host name when absent.
        state: Folder of the agent's state.
        root: The root of trust, root.json.
        prefix: MQTT topic prefix.
        tags: Groups of this device, key = value.
        device_classes: What this device is, for bundles that ask for a class; what the system
            calls its processor ("aarch64") is one always.
    """

    root: str
    state: str = "/var/lib/edgepack"
    device: str = ""
    prefix: str = DEFAULT_PREFIX
    tags: dict[str, str] = field(default_factory=dict)
    device_classes: tuple[str, ...] = ()
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    predictions: PredictionsConfig = field(default_factory=PredictionsConfig)
    probation: ProbationConfig = field(default_factory=ProbationConfig)
    truths: TruthsConfig = field(default_factory=TruthsConfig)
    shadow: ShadowConfig = field(default_factory=ShadowConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    input: tuple[InputConfig, ...] = ()
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    action: tuple[ActionConfig, ...] = ()
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def state_dir(self) -> Path:
        """Folder of the agent's state."""
        return Path(self.state)


def read_config(path: Path) -> AgentConfig:
    """Read agent.toml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: It is missing, too large, not TOML, or has a wrong or unknown key.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"configuration {path} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} must be at most {MAX_CONFIG_BYTES} bytes, got {len(data)}")
    try:
        value = tomllib.loads(data.decode())
        config = decode(AgentConfig, value, what=path.name, ignore_unknown=False)
    except (ValueError, DocumentError) as exc:
        text = str(exc)
        raise ConfigError(
            text if isinstance(exc, DocumentError) else f"{path.name}: {text}"
        ) from exc
    config = _with_defaults(config, path.parent)
    wrong = problems(config)
    if wrong:
        raise ConfigError(f"{path.name}: {'; '.join(wrong)}")
    return config


def _with_defaults(config: AgentConfig, base: Path) -> AgentConfig:
    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.normpath(base.absolute() / path)

    broker = replace(
        config.broker,
        password_file=absolute(config.broker.password_file),
        ca_file=absolute(config.broker.ca_file),
        cert_file=absolute(config.broker.cert_file),
        key_file=absolute(config.broker.key_file),
    )
    fetch = replace(
        config.fetch,
        ca_file=absolute(config.fetch.ca_file),
        credentials_file=absolute(config.fetch.credentials_file),
    )
    http = replace(
        config.http,
        socket=absolute(config.http.socket),
        token_file=absolute(config.http.token_file),
        cert_file=absolute(config.http.cert_file),
        key_file=absolute(config.http.key_file),
    )
    device = config.device or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:64]
    return replace(
        config,
        device=device,
        root=absolute(config.root) or "",
        state=absolute(config.state) or "",
        broker=broker,
        fetch=fetch,
        http=http,
        input=inputs.with_defaults(config.input, absolute),
        action=actions.with_defaults(config.action, absolute),
        log=replace(
            config.log,
            path=absolute(config.log.path or str(Path(config.state) / "predictions.jsonl")),
        ),
    )
