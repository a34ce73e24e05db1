"""The only place that decides what to do: the desired state against what is there.

Pure: no disk, no clock, no network. What comes out is carried out by `apply`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.agent.install.slot import Slot
from edgepack.wire.desired import Desired, DesiredModel, Mode


@dataclass(frozen=True, slots=True)
class Install:
    """Fetch (unless it is on disk) and try this version."""

    model: DesiredModel


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop and forget a model that the desired state brought and no longer lists."""

    name: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say why a wish is not followed; nothing changes."""

    name: str
    reason: str
    detail: str


Action = Install | Remove | Refuse


def reconcile(
    desired: Desired, slots: Mapping[str, Slot], *, now_s: float | None
) -> tuple[Action, ...]:
    """Decide.

    Args:
        desired: The accepted desired state.
        slots: What is there, by model name.
        now_s: Seconds since 1970 by the device's clock; None when that clock cannot be right: then
            nothing is known to have expired.

    Returns:
        Actions; carried out one after the other they make `slots` what `desired` says, as far as
        nothing fails. An empty tuple means that there is nothing to do.
    """
    actions: list[Action] = []
    wanted = {model.name: model for model in desired.models}
    for name, slot in sorted(slots.items()):
        if name not in wanted and slot.managed and slot.held_generation != desired.generation:
            actions.append(Remove(name))
    for model in desired.models:
        slot = slots.get(model.name, Slot(name=model.name))
        if _is_settled(model, slot, desired.generation):
            continue
        if now_s is not None and now_s > desired.expires_s:
            late = int(now_s - desired.expires_s)
            actions.append(Refuse(model.name, "expired", f"desired state expired {late} s ago"))
        else:
            actions.append(Install(model))
    return tuple(actions)


def _is_settled(model: DesiredModel, slot: Slot, generation: int) -> bool:
    if model.mode is Mode.OFFER or slot.held_generation == generation:
        return True
    if slot.active is not None and slot.active.digest == model.digest:
        return True
    return slot.failed_generation == generation and model.digest in slot.failed
