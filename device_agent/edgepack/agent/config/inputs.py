"""What feeds a model: agent.toml's `[[input]]`."""

from collections.abc import Callable
from dataclasses import field, replace
from enum import StrEnum

from edgepack.agent.config.broker import BrokerConfig
from edgepack.trust.values import dataclass


class Missing(StrEnum):
    """What stands in for a value that a message does not have."""

    REJECT = "reject"  # no prediction
    LAST = "last"  # the last one that came, as long as `max_age_s` allows
    NAN = "nan"
    VALUE = "value"


class TimeUnit(StrEnum):
    """What a sample's time is written in."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    ISO = "iso"


class Handled(StrEnum):
    """What becomes of a file that was handled."""

    MOVE = "move"
    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Where one feature comes from; value = map[raw], or raw * scale + offset.

    Attributes:
        path: JSON path in the message; by default the feature's own name as a key.
        topic: MQTT topic filter, where it is not the input's.
        scale, offset: From the sensor's unit to the model's.
        map: What stands for a category: written text (`true`, `3`, `ON`) → value. What is not in
            it counts as missing.
        missing: The rule for a missing value; by default `reject`, or `value` if there is one.
        value: For `missing = "value"`.
        max_age_s: Seconds after which an earlier value no longer counts; by default never.
    """

    path: str | None = None
    topic: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    map: dict[str, object] = field(default_factory=dict)
    missing: Missing | None = None
    value: object | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """A time series: the last `length` samples, every `stride` of them.

    Attributes:
        length: Samples in a window; by default what the contract says.
        stride: Samples between two windows; by default `length`.
        rate_hz: Samples a second; without it gaps are not seen.
        time: JSON path of a sample's time; by default it is when the message came.
        time_unit: Of that time.
        fill_s: A gap up to so many seconds is filled by a straight line; a longer one begins the
            window anew. Needs `time` and `rate_hz`.
    """

    length: int | None = None
    stride: int | None = None
    rate_hz: float | None = None
    time: str | None = None
    time_unit: TimeUnit = TimeUnit.S
    fill_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig:
    """A watched folder of images or WAV files.

    Attributes:
        path: The folder; its subfolders are not looked at.
        handled: What becomes of a file: `move` into `done/` or `failed/` in the folder, `delete`,
            or `keep`, which passes over what is there at the start.
        max_file_mb: A larger file has failed, in MB (10^6 bytes).
        max_done: Files that `done/` and `failed/` hold each; the oldest go.
        settle_s: A file is complete when it has not changed for so many seconds.
        poll_s: Seconds between two looks.
    """

    path: str
    handled: Handled = Handled.MOVE
    max_file_mb: float = 16.0
    max_done: int = 1000
    settle_s: float = 1.0
    poll_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """One source that feeds one model.

    Attributes:
        model: The model's name.
        name: What it is called in logs and predictions; by default the model's name.
        topic: MQTT topic filter.
        broker: Another broker than `[broker]`.
        stdin: JSON lines on standard input.
        socket: JSON lines on a unix socket that the agent makes.
        files: A watched folder.
        features: By feature name; in their order where the contract names no features.
        trigger: Topic filters whose messages make a prediction; by default the input's own
            `topic`, or every one where it has none.
        stream: JSON path of what tells several sensors apart that share a topic.
        request_id: JSON path of an id that a truth will name.
        min_interval_s: Least time between two predictions of one stream, in seconds.
        window: For time series.
    """

    model: str
    name: str = ""
    topic: str | None = None
    broker: BrokerConfig | None = None
    stdin: bool = False
    socket: str | None = None
    files: FilesConfig | None = None
    features: dict[str, FeatureConfig] = field(default_factory=dict)
    trigger: tuple[str, ...] = ()
    stream: str | None = None
    request_id: str | None = None
    min_interval_s: float = 0.0
    window: WindowConfig | None = None

    @property
    def filters(self) -> tuple[str, ...]:
        """Every topic filter, each once."""
        own = (self.topic,) if self.topic is not None else ()
        others = (feature.topic for feature in self.features.values())
        return tuple(dict.fromkeys([*own, *(topic for topic in others if topic is not None)]))

    @property
    def triggers(self) -> tuple[str, ...]:
        """The filters whose messages make a prediction."""
        if self.trigger:
            return self.trigger
        return (self.topic,) if self.topic is not None else self.filters


def with_defaults(
    inputs: tuple[InputConfig, ...], absolute: Callable[[str | None], str | None]
) -> tuple[InputConfig, ...]:
    """Names for inputs that have none, and absolute paths."""
    return tuple(
        replace(
            one,
            name=one.name or one.model,
            broker=absolute_broker(one.broker, absolute),
            socket=absolute(one.socket),
            files=replace(one.files, path=absolute(one.files.path) or "") if one.files else None,
        )
        for one in inputs
    )


def absolute_broker(
    broker: BrokerConfig | None, absolute: Callable[[str | None], str | None]
) -> BrokerConfig | None:
    """The same broker, its files by absolute paths."""
    if broker is None:
        return None
    return replace(
        broker,
        password_file=absolute(broker.password_file),
        ca_file=absolute(broker.ca_file),
        cert_file=absolute(broker.cert_file),
        key_file=absolute(broker.key_file),
    )
