"""An input held against a contract: which feature goes where. Pure.

It is made when a model is there and after each change of it, so that a mistake is said before the
first message comes.
"""

import math

from edgepack.agent.config.inputs import FeatureConfig, InputConfig, Missing, WindowConfig
from edgepack.agent.feed.errors import MismatchError
from edgepack.bundle.contract import Contract, Datatype, Nonfinite, TensorSpec
from edgepack.trust.values import dataclass
from edgepack.wire.json_path import JsonPath, parse_path

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One feature.

    Attributes:
        name: Its name.
        path: Where it stands in a message.
        topic: The filter of its messages, or None for every message of the input.
        datatype: What the model wants.
        rule: What is done to the raw value, and when there is none.
    """

    name: str
    path: JsonPath
    topic: str | None
    datatype: Datatype
    rule: FeatureConfig

    @property
    def missing(self) -> Missing:
        """The rule for a missing value."""
        if self.rule.missing is not None:
            return self.rule.missing
        return Missing.REJECT if self.rule.value is None else Missing.VALUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """How windows are cut.

    Attributes:
        spec: The contract's input.
        length, stride: In samples.
        shape: Of one window as the model takes it: (length, channels) or (length,).
        rate_hz, time, config: See `WindowConfig`.
    """

    spec: TensorSpec
    length: int
    stride: int
    shape: tuple[int, ...]
    time: JsonPath | None
    config: WindowConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How messages of one input become a model's tensors.

    Attributes:
        contract: Of the model.
        columns: The features; of a series in the order of its channels.
        series: For time series, else None.
    """

    contract: Contract
    columns: tuple[Column, ...]
    series: Series | None


def make_plan(config: InputConfig, contract: Contract) -> Plan:
    """Match an input to a contract.

    Raises:
        MismatchError: A feature is unknown or missing, or the shape does not fit.
    """
    series = None if config.window is None else _series(config, config.window, contract)
    wanted = _wanted(config, contract)
    problems: list[str] = []
    unknown = [name for name in config.features if name not in wanted]
    if unknown:
        problems.append(f"unknown features {_names(unknown)}, the model has {_names(list(wanted))}")
    if config.topic is None and config.filters:
        absent = [name for name in wanted if name not in config.features]
        if absent:
            problems.append(f"features {_names(absent)} have no topic")
    columns = tuple(_column(config, name, spec) for name, spec in wanted.items())
    for column in columns:
        problems += _misfits(column, wanted[column.name], is_series=series is not None)
    if series is None:
        problems += _shape_problems(config, contract)
    if problems:
        raise MismatchError("; ".join(problems[:_SHOWN]))
    return Plan(contract=contract, columns=columns, series=series)


def _wanted(config: InputConfig, contract: Contract) -> dict[str, TensorSpec]:
    """Feature name → the input that it is part of."""
    wanted: dict[str, TensorSpec] = {}
    for spec in contract.inputs:
        names = spec.feature_names or (spec.name,)
        if config.window is None and spec.name in config.features:
            names = (spec.name,)  # a list that holds all features
        elif config.window is not None and not spec.feature_names and config.features:
            names = tuple(config.features)
        wanted |= dict.fromkeys(names, spec)
    return wanted


def _column(config: InputConfig, name: str, spec: TensorSpec) -> Column:
    rule = config.features.get(name, FeatureConfig())
    return Column(
        name=name,
        path=(name,) if rule.path is None else parse_path(rule.path),
        topic=rule.topic if rule.topic is not None else config.topic,
        datatype=spec.datatype,
        rule=rule,
    )


def _misfits(column: Column, spec: TensorSpec, *, is_series: bool) -> list[str]:
    rule, where = column.rule, f"feature {column.name!r}"
    if column.missing is Missing.NAN and (
        spec.nonfinite is not Nonfinite.NAN or column.datatype is Datatype.BYTES
    ):
        return [f'{where}: missing = "nan" does not do, the model takes no NaN']
    if is_series and column.datatype is Datatype.BYTES:
        return [f"{where}: a window must be of numbers, the model takes text"]
    values = [*rule.map.values(), *([rule.value] if rule.value is not None else [])]
    is_text = column.datatype is Datatype.BYTES
    wrong = [value for value in values if isinstance(value, str) != is_text]
    if wrong:
        expected = "text" if is_text else "numbers"
        return [f"{where}: map and value must hold {expected} for this model, got {wrong[0]!r}"]
    if is_text and (rule.scale != 1 or rule.offset):
        return [f"{where}: text has no scale or offset"]
    return []


def _shape_problems(config: InputConfig, contract: Contract) -> list[str]:
    if config.files is not None:
        return _file_problems(contract)
    return [
        f"input {spec.name!r} has the shape {list(spec.shape)} and no names for its features: "
        f"give [input.window], or the path of a list as features.{spec.name}"
        for spec in contract.inputs
        if not spec.feature_names
        and spec.name not in config.features
        and (-1 in spec.shape[1:] or math.prod(spec.shape[1:]) != 1)
    ]


def _file_problems(contract: Contract) -> list[str]:
    """Whether a file can be a sample at all: an image, or a signal."""
    specs = contract.inputs
    is_tensor = (
        len(specs) == 1
        and len(specs[0].shape) in (2, 3, 4)
        and specs[0].datatype is not Datatype.BYTES
        and not specs[0].feature_names
    )
    if is_tensor:
        return []
    shapes = ", ".join(str(list(spec.shape)) for spec in specs[:_SHOWN])
    return [f"files are images or signals, the model takes features or several inputs: {shapes}"]


def _series(config: InputConfig, window: WindowConfig, contract: Contract) -> Series:
    if len(contract.inputs) != 1:
        raise MismatchError(f"a window needs a model of one input, got {len(contract.inputs)}")
    (spec,) = contract.inputs
    if len(spec.shape) not in (2, 3) or spec.shape[0] >= 0:
        raise MismatchError(
            f"a window needs an input of samples by channels, got the shape {list(spec.shape)}"
        )
    length = window.length if window.length is not None else spec.shape[1]
    if length < 0:
        raise MismatchError("window.length must be given: the model takes series of any length")
    if spec.shape[1] not in (-1, length):
        raise MismatchError(f"window.length must be {spec.shape[1]}, got {length}")
    channels = 1 if len(spec.shape) == 2 else spec.shape[2]
    named = spec.feature_names if len(spec.shape) == 3 else ()
    given = len(named) or len(config.features) or 1
    if channels not in (-1, given):
        raise MismatchError(
            f"the model takes {channels} channels, got {given} features (name them in their order)"
        )
    return Series(
        spec=spec,
        length=length,
        stride=window.stride if window.stride is not None else length,
        shape=(length,) if len(spec.shape) == 2 else (length, given),
        time=None if window.time is None else parse_path(window.time),
        config=window,
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
