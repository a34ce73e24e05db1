"""When an action is carried out. Pure: predictions and times go in, decisions come out."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgepack.agent.config.actions import ActionConfig, On, WhenConfig
from edgepack.agent.feed.template import Fields, names_in
from edgepack.bundle.contract import Contract, Task

_MAX_SOURCES: Final = 1024
_OWN_FIELDS: Final = frozenset(
    {"action", "device", "model", "model_version", "source", "request_id", "ts"}
)
_ANSWER_FIELDS: Final = frozenset({"label", "confidence", "value"})


class Decision(StrEnum):
    """What to publish."""

    ACT = "act"
    RESET = "reset"


@dataclass(slots=True)
class _Watch:
    holding: int = 0  # predictions in a row that met the condition
    failing: int = 0
    is_active: bool = False
    has_acted: bool = False  # since it became active
    acted_s: float = -math.inf


class Condition:
    """Follows the predictions of one model for one action, each source by itself.

    Args:
        config: The action.
    """

    def __init__(self, config: ActionConfig) -> None:
        self._config = config
        self._watches: OrderedDict[str | None, _Watch] = OrderedDict()

    def step(self, source: str | None, fields: Fields, *, now_s: float) -> Decision | None:
        """Look at a prediction.

        Args:
            source: Which sensor it comes from.
            fields: As they are published.
            now_s: Monotonic, in seconds.
        """
        config = self._config
        if config.source is not None and source != config.source:
            return None
        watch = self._watches.setdefault(source, _Watch())
        self._watches.move_to_end(source)
        if len(self._watches) > _MAX_SOURCES:
            self._watches.popitem(last=False)
        if holds(config.when, fields):
            return self._held(watch, now_s)
        return self._failed(watch)

    def _held(self, watch: _Watch, now_s: float) -> Decision | None:
        watch.failing = 0
        watch.holding = min(watch.holding + 1, self._config.in_a_row)
        if watch.holding < self._config.in_a_row:
            return None
        watch.is_active = True
        is_due = self._config.on is On.EACH or not watch.has_acted
        if not is_due or now_s - watch.acted_s < self._config.cool_down_s:
            return None
        watch.has_acted = True
        watch.acted_s = now_s
        return Decision.ACT

    def _failed(self, watch: _Watch) -> Decision | None:
        watch.holding = 0
        if not watch.is_active:
            return None
        reset = self._config.reset
        watch.failing += 1
        if reset is not None and watch.failing < reset.in_a_row:
            return None
        was_acted = watch.has_acted
        watch.is_active = watch.has_acted = False
        watch.failing = 0
        return Decision.RESET if reset is not None and was_acted else None


def holds(when: WhenConfig, fields: Fields) -> bool:
    """Whether a prediction meets a condition; what it does not have, it does not meet."""
    label = fields.get(when.field or "label")
    number = fields.get(when.field or "value")
    confidence = fields.get("confidence")
    if when.labels and label not in when.labels:
        return False
    if when.not_labels and (not isinstance(label, str) or label in when.not_labels):
        return False
    if when.min_confidence is not None and not _compares(confidence, low=when.min_confidence):
        return False
    if when.above is not None and not (_compares(number, low=when.above) and number != when.above):
        return False
    return when.below is None or (_compares(number, high=when.below) and number != when.below)


def _compares(value: object, *, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and low <= value <= high


def misfits(config: ActionConfig, contract: Contract) -> str:
    """Why an action can never be carried out for a model, in one line, or ""."""
    problems = []
    named = [*config.when.labels, *config.when.not_labels]
    unknown = [label for label in named if label not in contract.class_names]
    if contract.class_names and unknown and config.when.field is None:
        known = ", ".join(map(repr, contract.class_names[:10]))
        problems.append(f"the model has no class {unknown[0]!r}, it has {known}")
    outputs = {spec.name for spec in contract.outputs}
    if config.when.min_confidence is not None and "probabilities" not in outputs:
        problems.append("min_confidence does not do: the model gives no probabilities")
    asked = [] if config.when.field is None else [config.when.field]
    asked += names_in(config.payload)
    if config.reset is not None:
        asked += names_in(config.reset.payload)
    strange = [name for name in asked if not _may_have(name, outputs)]
    if strange:
        problems.append(f"predictions of the model have no field {strange[0]!r}")
    compares = config.when.above is not None or config.when.below is not None
    gives_value = contract.task is Task.REGRESSION or "value" in outputs
    if compares and config.when.field is None and not gives_value:
        problems.append("above and below need a field: the model gives no value")
    return "; ".join(problems)


def _may_have(name: str, outputs: set[str]) -> bool:
    if name in _OWN_FIELDS or name in _ANSWER_FIELDS:
        return True
    return any(name.startswith(f"{output}_") for output in outputs)
