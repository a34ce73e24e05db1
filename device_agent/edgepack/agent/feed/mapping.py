"""From messages to what a model takes: values are joined, kept, filled in and cut to windows.

Pure: no clock, no broker, no model; whoever calls says what time it is. One `Mapper` follows one
input; messages that share a wildcard's meaning (one press of many) are a stream of their own.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import field
from typing import Final, cast

import numpy as np

from edgepack.agent.config.inputs import InputConfig, Missing
from edgepack.agent.feed.errors import MessageError, MismatchError
from edgepack.agent.feed.plan import Column, Plan, Series
from edgepack.agent.feed.values import fitted, read_value
from edgepack.agent.feed.windows import Rows, Windows, read_time
from edgepack.agent.serve.requests import to_inputs
from edgepack.runtime import InputError
from edgepack.runtime.tensors import DTYPES, Array
from edgepack.trust.strict_json import JsonValue
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.filters import match, wildcards
from edgepack.wire.json_path import MISSING, look_up, parse_path
from edgepack.wire.open_inference import InferRequest, check_request_id

_MAX_STREAMS: Final = 256
_MAX_SERIES_BYTES: Final = 64 * 1024 * 1024  # of all streams of an input together
_MAX_SOURCE: Final = 256  # characters

_Key = tuple[str, ...]
_Value = JsonValue | object  # never MISSING where it is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a source.

    Attributes:
        document: Its JSON.
        topic: Where it came, or None of a source without topics.
        is_retained: The broker had kept it: it is remembered, and makes no prediction.
    """

    document: JsonValue
    topic: str | None = None
    is_retained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What a model is asked.

    Attributes:
        inputs: Contract name → array of one sample.
        source: Which sensor it comes from.
        request_id: What a truth will name, or None.
    """

    inputs: Mapping[str, Array]
    source: str
    request_id: str | None = None


@dataclass(slots=True)
class _Stream:
    latest: dict[str, tuple[_Value, float]] = field(default_factory=dict)
    windows: Windows | None = None
    predicted_s: float = -math.inf


class Mapper:
    """Follows the messages of one input.

    Args:
        config: The input.
        plan: How it fits the model.

    Raises:
        MismatchError: The windows would take too much memory.
    """

    def __init__(self, config: InputConfig, plan: Plan) -> None:
        self._config = config
        self._plan = plan
        self._series = plan.series
        self._streams: OrderedDict[_Key, _Stream] = OrderedDict()
        self._shared: dict[str, tuple[_Value, float]] = {}
        self._has_wildcards = any(wildcards(text) for text in config.filters)
        self._stream_path = None if config.stream is None else parse_path(config.stream)
        self._id_path = None if config.request_id is None else parse_path(config.request_id)
        self._most = _MAX_STREAMS
        if plan.series is not None:
            one = 16 * plan.series.length * len(plan.columns)
            self._most = min(_MAX_STREAMS, _MAX_SERIES_BYTES // one)
            if self._most < 1:
                raise MismatchError(f"a window of {one} bytes is too large")

    @property
    def gaps(self) -> int:
        """How often a window began anew because samples were missing."""
        return sum(stream.windows.gaps for stream in self._streams.values() if stream.windows)

    def take(self, message: Message, *, now_s: float) -> list[Sample]:
        """Take a message; gives what the model is asked now, mostly nothing or one sample.

        Args:
            message: What came.
            now_s: When, monotonic, in seconds.

        Raises:
            MessageError: It makes no prediction although it should have.
        """
        if message.topic is None:
            return self._follow(message, self._key(message, ()), {None}, now_s)
        found: dict[_Key, set[str | None]] = {}
        for text in self._config.filters:
            stands_for = match(text, message.topic)
            if stands_for is not None:
                found.setdefault(self._key(message, stands_for), set()).add(text)
        made: list[Sample] = []
        for key, texts in found.items():
            made += self._follow(message, key, texts, now_s)
        return made

    def _key(self, message: Message, stands_for: _Key) -> _Key:
        if self._stream_path is None:
            return stands_for
        value = look_up(message.document, self._stream_path)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise MessageError("missing", f"{self._config.stream} must tell the stream")
        return (*stands_for, str(value))

    def _follow(
        self, message: Message, key: _Key, texts: set[str | None], now_s: float
    ) -> list[Sample]:
        fresh = {
            column.name: read_value(message.document, column)
            for column in self._plan.columns
            if column.topic in texts
        }
        is_shared = self._has_wildcards and not any(wildcards(text or "") for text in texts)
        latest = self._shared if is_shared else self._stream(key).latest
        for name, value in fresh.items():
            if value is not MISSING:
                latest[name] = (value, now_s)
        triggers = message.topic is None or not texts.isdisjoint(self._config.triggers)
        if message.is_retained or not triggers:
            return []
        request_id = self._request_id(message)
        made: list[Sample] = []
        for one in list(self._streams) if is_shared else [key]:
            made += self._predict(message, one, fresh, request_id, now_s)
        return made

    def _stream(self, key: _Key) -> _Stream:
        stream = self._streams.get(key)
        if stream is None:
            if sum(map(len, key)) > _MAX_SOURCE:
                raise MessageError("streams", f"a stream's name is longer than {_MAX_SOURCE}")
            stream = self._streams[key] = _Stream()
            if self._series is not None:
                stream.windows = Windows(self._series, len(self._plan.columns))
            if len(self._streams) > self._most:
                self._streams.popitem(last=False)
        self._streams.move_to_end(key)
        return stream

    def _predict(
        self,
        message: Message,
        key: _Key,
        fresh: Mapping[str, _Value],
        request_id: str | None,
        now_s: float,
    ) -> list[Sample]:
        stream = self._stream(key)
        latest = {**self._shared, **stream.latest}
        values = {
            column.name: _chosen(column, fresh, latest, now_s) for column in self._plan.columns
        }
        source = "/".join(key) or self._config.name
        if self._series is not None and stream.windows is not None:
            inputs = self._cut(message, self._series, stream.windows, values, now_s)
        else:
            is_early = now_s - stream.predicted_s < self._config.min_interval_s
            inputs = [] if is_early else [self._row(values)]
        made = []
        for one in inputs:
            if now_s - stream.predicted_s >= self._config.min_interval_s:
                stream.predicted_s = now_s if self._config.min_interval_s else -math.inf
                made.append(Sample(inputs=one, source=source, request_id=request_id))
        return made

    def _row(self, values: Mapping[str, _Value]) -> dict[str, Array]:
        try:
            request = InferRequest(None, None, cast("Mapping[str, JsonValue]", values))
            return to_inputs(request, self._plan.contract)
        except InputError as exc:
            raise MessageError("wrong_value", str(exc)) from exc

    def _cut(
        self,
        message: Message,
        series: Series,
        windows: Windows,
        values: Mapping[str, _Value],
        now_s: float,
    ) -> list[dict[str, Array]]:
        rows = _rows(values)
        time_s = None
        if series.time is not None:
            time_s = read_time(look_up(message.document, series.time), series.config.time_unit)
        dtype = DTYPES[series.spec.datatype]
        made = []
        for window in windows.push(rows, time_s=time_s, now_s=now_s):
            with np.errstate(over="ignore", invalid="ignore"):  # which the model refuses
                fitting = window.astype(dtype)
            is_whole = dtype.kind == "f" or np.array_equal(fitting, window)
            array = fitting if is_whole else window  # which the model refuses, and says why
            made.append({series.spec.name: array.reshape(1, *series.shape)})
        return made

    def _request_id(self, message: Message) -> str | None:
        if self._id_path is None:
            return None
        value = look_up(message.document, self._id_path)
        try:
            return None if value is MISSING else check_request_id(cast("JsonValue", value))
        except WireError as exc:
            raise MessageError("wrong_value", str(exc)) from exc


def _chosen(
    column: Column,
    fresh: Mapping[str, _Value],
    latest: Mapping[str, tuple[_Value, float]],
    now_s: float,
) -> _Value:
    """A value of this message, the latest of another topic, or what stands in for it."""
    is_joined = column.name not in fresh
    if not is_joined and fresh[column.name] is not MISSING:
        return fresh[column.name]
    known = latest.get(column.name)
    is_stale = False
    if known is not None and (is_joined or column.missing is Missing.LAST):
        max_age_s = column.rule.max_age_s
        is_stale = max_age_s is not None and now_s - known[1] > max_age_s
        if not is_stale:
            return known[0]
    if column.missing is Missing.VALUE:
        return fitted(column.rule.value, column)
    if column.missing is Missing.NAN:
        return math.nan
    why = f"is older than {column.rule.max_age_s} s" if is_stale else "is missing"
    raise MessageError("stale" if is_stale else "missing", f"feature {column.name!r} {why}")


def _rows(values: Mapping[str, _Value]) -> Rows:
    """Samples by channels: every value is a list of as many, or one number for all of them."""
    count = max((len(value) for value in values.values() if isinstance(value, list)), default=1)
    lists = [value if isinstance(value, list) else [value] * count for value in values.values()]
    if any(len(each) != count for each in lists) or not count:
        raise MessageError("wrong_value", "features must have as many samples as one another")
    for each in lists:
        if not all(isinstance(item, int | float) for item in each):
            raise MessageError("wrong_value", "a window's samples must be numbers")
    try:
        return np.array(lists, dtype=np.float64).T
    except OverflowError as exc:
        raise MessageError("wrong_value", f"a window's samples must fit a float: {exc}") from exc
