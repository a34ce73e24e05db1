"""The sections of agent.toml that hold nothing but settings."""

from dataclasses import field
from enum import StrEnum

from edgepack.trust.values import dataclass


class Publish(StrEnum):
    """Which predictions go to `out/prediction`; a request without response topic always does."""

    ALL = "all"
    ON_CHANGE = "on-change"
    INTERVAL = "interval"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """How often figures are told while nobody watches.

    Attributes:
        interval_s: Seconds between two metrics documents of a model; what has not changed is
            left out.
        slow_s: Seconds after which everything is told: metrics that did not change, those of the
            agent and the device, and the retained latest values.
    """

    interval_s: float = 900.0
    slow_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRule:
    """Which predictions of a model are published.

    Attributes:
        publish: The policy.
        interval_s: The least time between two, in seconds.
        min_change: Numbers that differ by less from the last one published are the same.
    """

    publish: Publish = Publish.ON_CHANGE
    interval_s: float = 10.0
    min_change: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPredictionsConfig:
    """What holds for one model instead; see `PredictionRule`."""

    publish: Publish | None = None
    interval_s: float | None = None
    min_change: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsConfig(PredictionRule):
    """The rule for all models, and by name what is different for one."""

    models: dict[str, ModelPredictionsConfig] = field(default_factory=dict)

    def rule(self, model: str) -> PredictionRule:
        """What holds for a model."""
        own = self.models.get(model)
        if own is None:
            return self
        return PredictionRule(
            publish=self.publish if own.publish is None else own.publish,
            interval_s=self.interval_s if own.interval_s is None else own.interval_s,
            min_change=self.min_change if own.min_change is None else own.min_change,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """A log of predictions on the device.

    Attributes:
        predictions: Whether there is one.
        path: The file; by default `predictions.jsonl` in the state folder.
        max_mb: What it and the one before it may take together, in MB (10^6 bytes).
        inputs: Whether what the model was asked is written as well.
        redact: Features and fields whose values are not written.
        flush_s: Seconds after which what waits is written.
    """

    predictions: bool = False
    path: str | None = None
    max_mb: float = 16.0
    inputs: bool = False
    redact: tuple[str, ...] = ()
    flush_s: float = 60.0


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
