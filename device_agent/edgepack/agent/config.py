"""agent.toml, as values. An unknown key is an error: it is a typing mistake."""

import math
import os
import platform
import re
import tomllib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgepack.agent.errors import ConfigError
from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.wire.errors import WireError
from edgepack.wire.topics import DEFAULT_PREFIX, check_id, check_prefix

MAX_CONFIG_BYTES = 256 * 1024
MAX_ATTEMPTS = 10  # how many failures of a version are remembered
_MAX_KEEPALIVE_S = 65_535  # MQTT's field has two bytes
_PROXY = re.compile(r"(http://)?([^\s/@]+@)?[^\s/@]+/?")
_MAX_STATE_PATH_BYTES = 96  # of the 107 that a unix socket's path may have


class Publish(StrEnum):
    """Which predictions go to `out/prediction`; a request without response topic always does."""

    ALL = "all"
    ON_CHANGE = "on-change"
    INTERVAL = "interval"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """Where the broker is.

    Attributes:
        url: `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`; absent: the agent works alone.
        username: User name, if the broker wants one.
        password_file: File whose first line is the password; never in agent.toml itself.
        ca_file, cert_file, key_file: TLS: who signs the broker, and this device's certificate.
        keepalive_s: Seconds between signs of life.
    """

    url: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keepalive_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """interval_s: seconds between two metrics documents of a model."""

    interval_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsConfig:
    """publish: the policy; interval_s: the least time between two, in seconds."""

    publish: Publish = Publish.ON_CHANGE
    interval_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbationConfig:
    """A new version is confirmed after `requests` answers or `seconds`, whichever comes first.

    It is rolled back for what the bounds of intervals show, see `edgepack.agent.install.judge`.
    A comparison is with the version before; a limit that is None demands nothing.

    Attributes:
        requests: Answered requests.
        truths: Trusted truths that are waited for as well, until the time is up.
        seconds: Seconds since the switch.
        max_error_rate: Share of engine failures above which it is rolled back, in 0..1.
        max_latency_factor: How many times the median latency may be that of the version before.
        latency_slack_ms: A median that is longer by no more than this is never too long, in ms.
        max_latency_ms: Largest median latency, in ms.
        min_samples: Fewest answers that say something about latency.
        max_accuracy_drop: Largest loss of accuracy, in 0..1.
        min_accuracy: Smallest accuracy, in 0..1.
        max_mae_factor: How many times the mean absolute error may be that of the version before.
        max_mae: Largest mean absolute error of a regression, in the unit of its target.
        min_truths: Fewest trusted truths that say something about quality.
        max_attempts: Failures of one version within `attempts_window_s` before it is not
            tried any more, whatever desired state asks for it.
        attempts_window_s: Seconds after which failures are forgotten.
    """

    requests: int = 100
    truths: int = 0
    seconds: float = 60.0
    max_error_rate: float = 0.01
    max_latency_factor: float = 2.0
    latency_slack_ms: float = 1.0
    max_latency_ms: float | None = None
    min_samples: int = 50
    max_accuracy_drop: float = 0.02
    min_accuracy: float | None = None
    max_mae_factor: float = 1.2
    max_mae: float | None = None
    min_truths: int = 20
    max_attempts: int = 3
    attempts_window_s: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthsConfig:
    """trusted: whether truths may roll a version back; whoever may publish them can then do so."""

    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowConfig:
    """Bounds of a challenger, which must not be in the way of what answers.

    Attributes:
        memory_mb: Private memory that its process may take for the model, in MB (10^6 bytes).
        queue: Inputs that wait for it; more are dropped.
        queue_mb: What those may weigh together, in MB.
    """

    memory_mb: float = 512.0
    queue: int = 64
    queue_mb: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftConfig:
    """Drift of the inputs against the bundle's reference.

    Attributes:
        window: Rows in one window.
        alpha: Wanted rate of false alarms of one window, in 0..1.
        consecutive: Windows in a row that must be off before the alarm.
    """

    window: int = 200
    alpha: float = 0.01
    consecutive: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Bounds of what the agent uses.

    Attributes:
        max_bundle_mb: Largest bundle that is fetched, in MB (10^6 bytes).
        outbox_rows: Largest number of waiting reports on disk.
        pending_requests: Requests waiting for the engine before new ones are refused.
        self_test_s: Seconds that a self-test may take, with all variants.
        self_test_variant_s: Seconds for one variant; absent: an equal share of what is left.
        self_test_compare_s: Seconds in which two variants are told apart. Less makes the choice
            rougher, and tests of the agent quicker.
        max_latency_ms: A model that takes longer for one inference here is refused.
        max_memory_mb: A model that takes more private memory here is refused, in MB (10^6 bytes).
        download_kbps: Kilobits (1000 bits) a second that all fetching together takes; 0: no limit.
    """

    max_bundle_mb: float = 512.0
    outbox_rows: int = 20_000
    pending_requests: int = 256
    self_test_s: float = 120.0
    self_test_variant_s: float | None = None
    self_test_compare_s: float = 4.0
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    download_kbps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """How bundles are fetched from servers (`http:`, `https:`, `oci:`).

    Attributes:
        ca_file: PEM file of authorities that are trusted besides the system's.
        proxy: `http://[USER:PASSWORD@]HOST[:PORT]`; "" for none; absent: what the environment says
            (`http_proxy`, `https_proxy`, `no_proxy`).
        credentials_file: Users and passwords by server, as `docker login` writes them.
        plain_http: Servers (HOST or HOST:PORT) to which a registry's requests and passwords may go
            without TLS; this machine itself always is one.
        stall_s: Seconds of waiting in which a server must give 100 bytes a second.
        jitter_s: Seconds over which the devices of a fleet spread the start of a fetch; each
            waits a part of it that follows from its id and the bundle.
    """

    ca_file: str | None = None
    proxy: str | None = None
    credentials_file: str | None = None
    plain_http: tuple[str, ...] = ()
    stall_s: float = 30.0
    jitter_s: float = 0.0


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
    broker: BrokerConfig = BrokerConfig()
    metrics: MetricsConfig = MetricsConfig()
    predictions: PredictionsConfig = PredictionsConfig()
    probation: ProbationConfig = ProbationConfig()
    truths: TruthsConfig = TruthsConfig()
    shadow: ShadowConfig = ShadowConfig()
    drift: DriftConfig = DriftConfig()
    limits: LimitsConfig = LimitsConfig()
    fetch: FetchConfig = FetchConfig()

    @property
    def state_dir(self) -> Path:
        """Folder of the agent's state."""
        return Path(self.state)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A parsed broker URL."""

    host: str
    port: int
    tls: bool


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
    return _checked(_with_defaults(config, path.parent), path.name)


def broker_address(url: str) -> BrokerAddress:
    """Parse `mqtt://HOST[:PORT]` or `mqtts://…`.

    Raises:
        ConfigError: It is not such a URL, or carries a password.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"broker url has a wrong port: {exc}") from exc
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ConfigError(f"broker url must be mqtt(s)://HOST[:PORT], got {parts.scheme}://…")
    if parts.username or parts.password:
        raise ConfigError(
            "broker url must not hold a user or password: use username, password_file"
        )
    tls = parts.scheme == "mqtts"
    return BrokerAddress(unquote(parts.hostname), port or (8883 if tls else 1883), tls)


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
    device = config.device or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:64]
    return replace(
        config,
        device=device,
        root=absolute(config.root) or "",
        state=absolute(config.state) or "",
        broker=broker,
        fetch=fetch,
    )


def _checked(config: AgentConfig, what: str) -> AgentConfig:
    wrong = []
    try:
        check_id(config.device, what="device id")
        check_prefix(config.prefix)
        if config.broker.url is not None:
            broker_address(config.broker.url)
    except (WireError, ConfigError) as exc:
        wrong.append(str(exc))
    wrong += _wrong_numbers(config)
    if config.fetch.proxy and not _PROXY.fullmatch(config.fetch.proxy):
        wrong.append("fetch.proxy must be http://[USER:PASSWORD@]HOST[:PORT], or empty for none")
    if len(os.fsencode(config.state)) > _MAX_STATE_PATH_BYTES:
        wrong.append(
            f"state must be a path of at most {_MAX_STATE_PATH_BYTES} bytes, "
            f"got {len(os.fsencode(config.state))} (a socket in it may not have a longer name)"
        )
    if wrong:
        raise ConfigError(f"{what}: {'; '.join(wrong)}")
    return config


def _wrong_numbers(config: AgentConfig) -> list[str]:
    wrong = []
    for name, number in (
        ("broker.keepalive_s", config.broker.keepalive_s),
        ("metrics.interval_s", config.metrics.interval_s),
        ("probation.requests", config.probation.requests),
        ("probation.seconds", config.probation.seconds),
        ("probation.max_latency_factor", config.probation.max_latency_factor),
        ("probation.max_latency_ms", config.probation.max_latency_ms),
        ("probation.min_samples", config.probation.min_samples),
        ("probation.max_mae_factor", config.probation.max_mae_factor),
        ("probation.max_mae", config.probation.max_mae),
        ("probation.min_truths", config.probation.min_truths),
        ("probation.max_attempts", config.probation.max_attempts),
        ("probation.attempts_window_s", config.probation.attempts_window_s),
        ("shadow.memory_mb", config.shadow.memory_mb),
        ("shadow.queue", config.shadow.queue),
        ("shadow.queue_mb", config.shadow.queue_mb),
        ("drift.window", config.drift.window),
        ("drift.consecutive", config.drift.consecutive),
        ("limits.max_bundle_mb", config.limits.max_bundle_mb),
        ("limits.outbox_rows", config.limits.outbox_rows),
        ("limits.pending_requests", config.limits.pending_requests),
        ("limits.self_test_s", config.limits.self_test_s),
        ("limits.self_test_variant_s", config.limits.self_test_variant_s),
        ("limits.self_test_compare_s", config.limits.self_test_compare_s),
        ("limits.max_latency_ms", config.limits.max_latency_ms),
        ("limits.max_memory_mb", config.limits.max_memory_mb),
        ("fetch.stall_s", config.fetch.stall_s),
    ):
        if number is not None and not 0 < number < math.inf:
            wrong.append(f"{name} must be > 0 and finite, got {number}")
    for name, number, most in (
        ("probation.max_attempts", config.probation.max_attempts, MAX_ATTEMPTS),
        ("broker.keepalive_s", config.broker.keepalive_s, _MAX_KEEPALIVE_S),
    ):
        if number > most:
            wrong.append(f"{name} must be at most {most}, got {number}")
    for name, number in (
        ("predictions.interval_s", config.predictions.interval_s),
        ("probation.truths", config.probation.truths),
        ("probation.latency_slack_ms", config.probation.latency_slack_ms),
        ("limits.download_kbps", config.limits.download_kbps),
        ("fetch.jitter_s", config.fetch.jitter_s),
    ):
        if not 0 <= number < math.inf:
            wrong.append(f"{name} must be >= 0 and finite, got {number}")
    for name, share in (
        ("probation.max_error_rate", config.probation.max_error_rate),
        ("probation.max_accuracy_drop", config.probation.max_accuracy_drop),
        ("probation.min_accuracy", config.probation.min_accuracy),
        ("drift.alpha", config.drift.alpha),
    ):
        if share is not None and not 0 <= share <= 1:
            wrong.append(f"{name} must be in 0..1, got {share}")
    return wrong
