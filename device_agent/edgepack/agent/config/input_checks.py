"""What `[[input]]` must hold beyond its types."""

import math
import os
from typing import Final

from edgepack.agent.config.broker import broker_address
from edgepack.agent.config.inputs import (
    FeatureConfig,
    FilesConfig,
    InputConfig,
    Missing,
    WindowConfig,
)
from edgepack.agent.errors import ConfigError
from edgepack.wire.errors import WireError
from edgepack.wire.filters import check_filter, wildcards
from edgepack.wire.json_path import parse_path
from edgepack.wire.topics import check_id

MAX_INPUTS: Final = 64
MAX_WINDOW: Final = 1_000_000  # samples
_MAX_SOCKET_BYTES: Final = 107


def input_problems(inputs: tuple[InputConfig, ...], *, has_broker: bool) -> list[str]:
    """What is wrong with the inputs, a line each."""
    wrong = []
    if len(inputs) > MAX_INPUTS:
        wrong.append(f"there may be at most {MAX_INPUTS} inputs, got {len(inputs)}")
    names = [one.name for one in inputs]
    wrong += [
        f"two inputs are called {name!r}: give each a name of its own"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if sum(one.stdin for one in inputs) > 1:
        wrong.append("standard input can feed one input only")
    sockets = [one.socket for one in inputs if one.socket is not None]
    if len(set(sockets)) != len(sockets):
        wrong.append("two inputs listen on the same socket")
    for one in inputs:
        lines = [*_wrong_names(one), *_wrong_source(one, has_broker), *_wrong_numbers(one)]
        wrong += [f"input {one.name!r}: {line}" for line in lines]
    return wrong


def _wrong_names(one: InputConfig) -> list[str]:
    wrong: list[str] = []
    paths = [one.stream, one.request_id, one.window.time if one.window else None]
    paths += [feature.path for feature in one.features.values()]
    try:
        check_id(one.model, what="model")
        check_id(one.name, what="name")
        for topic in (*one.filters, *one.trigger):
            check_filter(topic)
        for path in paths:
            parse_path("$" if path is None else path)
        if one.broker is not None:
            broker_address(one.broker.url or "")
    except (WireError, ConfigError) as exc:
        wrong.append(str(exc))
    if one.socket is not None and len(os.fsencode(one.socket)) > _MAX_SOCKET_BYTES:
        wrong.append(f"socket must be a path of at most {_MAX_SOCKET_BYTES} bytes")
    for name, feature in one.features.items():
        wrong += [f"feature {name!r}: {line}" for line in _wrong_feature(feature)]
    return wrong


def _wrong_source(one: InputConfig, has_broker: bool) -> list[str]:
    sources = [bool(one.filters), one.stdin, one.socket is not None, one.files is not None]
    if sum(sources) != 1:
        return ["must have one source: topic (or features with topics), stdin, socket, files"]
    takes_none = one.features or one.window or one.stream or one.request_id
    rules = (
        (
            bool(one.filters) and one.broker is None and not has_broker,
            "has a topic, but there is neither [broker] nor a broker of its own",
        ),
        (one.broker is not None and not one.filters, "has a broker but no topic"),
        (
            len({wildcards(topic) for topic in one.filters} - {()}) > 1,
            "its topics must have the same wildcards, or none, so that they can be joined",
        ),
        (
            any(topic not in one.filters for topic in one.trigger),
            "trigger must name topics of this input as they are written there",
        ),
        (
            bool(one.filters)
            and one.topic is None
            and any(feature.topic is None for feature in one.features.values()),
            "has features without a topic, and no topic of its own",
        ),
        (
            one.files is not None and bool(takes_none),
            "files take no features, window, stream or request_id",
        ),
        (
            one.window is not None and len(one.filters) > 1,
            "a window's samples must come from one topic",
        ),
    )
    return [line for is_wrong, line in rules if is_wrong]


def _wrong_feature(feature: FeatureConfig) -> list[str]:
    wrong = []
    if not (math.isfinite(feature.scale) and feature.scale and math.isfinite(feature.offset)):
        wrong.append("scale must be finite and not 0, offset finite")
    if (feature.missing is Missing.VALUE) and feature.value is None:
        wrong.append('missing = "value" needs a value')
    if feature.value is not None and feature.missing not in (None, Missing.VALUE):
        wrong.append(f'value does not go with missing = "{feature.missing}"')
    for value in (*feature.map.values(), feature.value):
        if value is not None and not isinstance(value, bool | int | float | str):
            wrong.append(f"map and value must hold numbers or text, got {type(value).__name__}")
            break
    return wrong


def _wrong_numbers(one: InputConfig) -> list[str]:
    window, files = one.window or WindowConfig(), one.files or FilesConfig(path="")
    wrong = [
        f"{name} must be > 0 and finite, got {number}"
        for name, number in (
            ("window.length", window.length),
            ("window.stride", window.stride),
            ("window.rate_hz", window.rate_hz),
            ("files.max_file_mb", files.max_file_mb),
            ("files.max_done", files.max_done),
            ("files.poll_s", files.poll_s),
            *((f"{name}.max_age_s", each.max_age_s) for name, each in one.features.items()),
        )
        if number is not None and not 0 < number < math.inf
    ]
    wrong += [
        f"{name} must be >= 0 and finite, got {number}"
        for name, number in (
            ("min_interval_s", one.min_interval_s),
            ("window.fill_s", window.fill_s),
            ("files.settle_s", files.settle_s),
        )
        if not 0 <= number < math.inf
    ]
    if window.length is not None and window.length > MAX_WINDOW:
        wrong.append(f"window.length must be at most {MAX_WINDOW}, got {window.length}")
    if window.fill_s and (window.rate_hz is None or window.time is None):
        wrong.append("window.fill_s needs window.rate_hz and window.time")
    return wrong
