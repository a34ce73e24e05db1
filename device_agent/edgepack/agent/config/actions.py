"""What follows from a prediction: agent.toml's `[[action]]`."""

import math
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from edgepack.agent.config.broker import BrokerConfig, broker_address
from edgepack.agent.config.inputs import absolute_broker
from edgepack.agent.errors import ConfigError
from edgepack.trust.decode import encode
from edgepack.trust.strict_json import render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.filters import check_topic
from edgepack.wire.topics import check_id

MAX_ACTIONS: Final = 64
_MAX_PAYLOAD_BYTES: Final = 16 * 1024


class On(StrEnum):
    """When an action is carried out while its condition holds."""

    ENTER = "enter"  # once, when it begins to
    EACH = "each"  # with every prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class WhenConfig:
    """A condition on one prediction; all that is given must hold.

    Attributes:
        labels: The label is one of these.
        not_labels: There is a label, and it is none of these.
        min_confidence: The confidence is at least this, in 0..1.
        above, below: The number is larger, or smaller.
        field: Which field of `out/prediction` `above`, `below` and the labels look at; by default
            `value` and `label`.
    """

    labels: tuple[str, ...] = ()
    not_labels: tuple[str, ...] = ()
    min_confidence: float | None = None
    above: float | None = None
    below: float | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetConfig:
    """What is published when the condition ends, after the action was carried out.

    Attributes:
        in_a_row: Predictions in a row for which it does not hold.
        topic: By default the action's.
        payload, qos, retain: See `ActionConfig`.
    """

    payload: object = None
    in_a_row: int = 1
    topic: str | None = None
    qos: int | None = None
    retain: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionConfig:
    """Publishes a message when predictions meet a condition.

    Attributes:
        name: What it is called.
        model: Whose predictions it looks at.
        when: The condition.
        source: Only those of this sensor; otherwise each sensor's are counted by themselves.
        in_a_row: Predictions in a row that must meet it.
        cool_down_s: Least time between two, in seconds, of one sensor.
        on: When.
        topic: Where to; by default `<prefix>/<device>/out/action/<name>`.
        payload: Text, or a table that becomes JSON; `${label}` stands for a field.
        qos: 0, 1 or 2.
        retain: Whether the broker keeps it.
        broker: Another broker than `[broker]`.
        reset: What to publish when the condition ends.
    """

    name: str
    model: str
    when: WhenConfig
    source: str | None = None
    in_a_row: int = 1
    cool_down_s: float = 0.0
    on: On = On.ENTER
    topic: str | None = None
    payload: object = None
    qos: int = 1
    retain: bool = False
    broker: BrokerConfig | None = None
    reset: ResetConfig | None = None


def with_defaults(
    actions: tuple[ActionConfig, ...], absolute: Callable[[str | None], str | None]
) -> tuple[ActionConfig, ...]:
    """Absolute paths."""
    return tuple(replace(one, broker=absolute_broker(one.broker, absolute)) for one in actions)


def action_problems(actions: tuple[ActionConfig, ...], base: str, *, has_broker: bool) -> list[str]:
    """What is wrong with the actions, a line each.

    Args:
        actions: All of them.
        base: What the topics of this device begin with.
        has_broker: Whether there is a `[broker]`.
    """
    wrong = []
    if len(actions) > MAX_ACTIONS:
        wrong.append(f"there may be at most {MAX_ACTIONS} actions, got {len(actions)}")
    names = [one.name for one in actions]
    wrong += [
        f"two actions are called {name!r}: give each a name of its own"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    for one in actions:
        lines = [*_wrong_places(one, base, has_broker), *_wrong_when(one), *_wrong_payloads(one)]
        wrong += [f"action {one.name!r}: {line}" for line in lines]
    return wrong


def _wrong_places(one: ActionConfig, base: str, has_broker: bool) -> list[str]:
    wrong = []
    topics = [one.topic, one.reset.topic if one.reset else None]
    try:
        check_id(one.name, what="name")
        check_id(one.model, what="model")
        for topic in topics:
            check_topic("x" if topic is None else topic)
        if one.broker is not None:
            broker_address(one.broker.url or "")
    except (WireError, ConfigError) as exc:
        wrong.append(str(exc))
    own, allowed = f"{base}/out/", f"{base}/out/action/"
    wrong += [
        f"topic must not be among the agent's own reports, got {topic[:120]!r}"
        for topic in topics
        if topic and topic.startswith(own) and not topic.startswith(allowed)
    ]
    if one.broker is None and not has_broker:
        wrong.append("there is neither [broker] nor a broker of its own")
    return wrong


def _wrong_when(one: ActionConfig) -> list[str]:
    when = one.when
    numbers = [when.min_confidence, when.above, when.below]
    wrong = []
    if not (when.labels or when.not_labels or any(number is not None for number in numbers)):
        wrong.append("when must hold a condition: labels, not_labels, min_confidence, above, below")
    if any(number is not None and not math.isfinite(number) for number in numbers):
        wrong.append("min_confidence, above and below must be finite")
    if when.min_confidence is not None and not 0 <= when.min_confidence <= 1:
        wrong.append(f"min_confidence must be in 0..1, got {when.min_confidence}")
    rows = [one.in_a_row, one.reset.in_a_row if one.reset else 1]
    if any(not 1 <= row <= 1_000_000 for row in rows):
        wrong.append("in_a_row must be in 1..1000000")
    if not 0 <= one.cool_down_s < math.inf:
        wrong.append(f"cool_down_s must be >= 0 and finite, got {one.cool_down_s}")
    qualities = [one.qos, one.reset.qos if one.reset else None]
    if any(qos is not None and qos not in (0, 1, 2) for qos in qualities):
        wrong.append("qos must be 0, 1 or 2")
    return wrong


def _wrong_payloads(one: ActionConfig) -> list[str]:
    for payload in (one.payload, one.reset.payload if one.reset else None):
        if payload is None or isinstance(payload, str):
            continue
        if not isinstance(payload, dict):
            return [f"payload must be text or a table, got {type(payload).__name__}"]
        try:
            size = len(render(encode(payload)))
        except (TypeError, ValueError, RecursionError):
            return ["payload must hold text, numbers, booleans, lists and tables only"]
        if size > _MAX_PAYLOAD_BYTES:
            return [f"payload must be at most {_MAX_PAYLOAD_BYTES} bytes, got {size}"]
    return []
