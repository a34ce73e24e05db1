"""The only place that decides what to do: the desired state against what is there.

Pure: no disk, no clock, no network. What comes out is carried out by `apply`.
"""

from collections.abc import Mapping

from edgepack.agent.config import ProbationConfig
from edgepack.agent.install.slot import Slot, shadow_key
from edgepack.agent.install.tries import recent_failures
from edgepack.trust.values import dataclass
from edgepack.wire.desired import Desired, DesiredModel, Mode

_DEFAULT_LIMITS = ProbationConfig()


@dataclass(frozen=True, slots=True)
class Install:
    """Fetch (unless it is on disk) and try this version, or let it be the challenger."""

    model: DesiredModel

    @property
    def key(self) -> str:
        """The slot that it concerns."""
        return key_of(self.model)


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop and forget a model, or a challenger, that the desired state no longer lists."""

    key: str


@dataclass(frozen=True, slots=True)
class BreakLoop:
    """Refuse a version that failed too often, until a person says otherwise."""

    model: DesiredModel
    detail: str

    @property
    def key(self) -> str:
        """The slot that it concerns."""
        return key_of(self.model)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say why a wish is not followed; nothing changes."""

    name: str
    reason: str
    detail: str


Action = Install | Remove | BreakLoop | Refuse


def reconcile(
    desired: Desired,
    slots: Mapping[str, Slot],
    *,
    now_s: float | None,
    limits: ProbationConfig = _DEFAULT_LIMITS,
) -> tuple[Action, ...]:
    """Decide.

    Args:
        desired: The accepted desired state.
        slots: What is there, by `Slot.key`.
        now_s: Seconds since 1970 by the device's clock; None when that clock cannot be right: then
            nothing is known to have expired, and no failure to be long ago.
        limits: How often a version may fail.

    Returns:
        Actions, at most one for a slot; carried out in any order they make `slots` what `desired`
        says, as far as nothing fails. An empty tuple means that there is nothing to do.
    """
    actions: list[Action] = []
    wanted = wanted_by_key(desired, slots)
    listed = {model.name for model in desired.models if model.mode is not Mode.SHADOW}
    for key, slot in sorted(slots.items()):
        if key in wanted or (not slot.shadow and slot.name in listed):
            continue
        if slot.shadow and _is_being_promoted(slot, wanted.get(slot.name), slots, desired):
            continue
        if slot.managed and slot.held_generation != desired.generation:
            actions.append(Remove(key))
    for model in desired.models:
        if model.mode is Mode.SHADOW:
            actions.extend(_unfit(model, wanted, slots))
    for key, model in wanted.items():
        slot = slots.get(key, Slot(name=model.name, shadow=model.mode is Mode.SHADOW))
        if not _is_settled(model, slot, wish_of(desired, model)):
            actions.append(_try(model, slot, desired, now_s, limits))
    return tuple(actions)


def wanted_by_key(desired: Desired, slots: Mapping[str, Slot]) -> dict[str, DesiredModel]:
    """What each slot shall hold, as far as the device may act on its own.

    An offer counts once a person has asked for it, and then before what is to be installed. A
    challenger needs a proven version to stand beside, and ends when it is the one that answers.
    """
    wanted: dict[str, DesiredModel] = {}
    for model in desired.models:
        slot = slots.get(model.name)
        if model.mode is Mode.INSTALL:
            wanted.setdefault(model.name, model)
        elif model.mode is Mode.OFFER and slot is not None and slot.consent == model.digest:
            wanted[model.name] = model
        elif model.mode is Mode.SHADOW and slot is not None and _is_champion(slot, model):
            wanted[shadow_key(model.name)] = model
    return wanted


def key_of(model: DesiredModel) -> str:
    """The slot that an entry of the desired state is about."""
    return shadow_key(model.name) if model.mode is Mode.SHADOW else model.name


def wish_of(desired: Desired, model: DesiredModel | None) -> int:
    """The generation in which the desired state last changed its mind about a model.

    A change that concerns other models only is no reason to try again what failed here, or to
    overrule what a person on the device decided.
    """
    return model.asked if model is not None and model.asked else desired.generation


def _unfit(
    challenger: DesiredModel, wanted: Mapping[str, DesiredModel], slots: Mapping[str, Slot]
) -> tuple[Refuse, ...]:
    """Why a challenger has nothing to stand beside, in at most one line."""
    slot = slots.get(challenger.name)
    if slot is not None and slot.active is not None:
        if slot.active.digest != challenger.digest:
            return ()
        detail = f"the challenger {challenger.version} is itself the version that answers"
        return (Refuse(challenger.name, "is_champion", detail),)
    if challenger.name in wanted:
        return ()
    detail = f"the challenger {challenger.version} waits: no version answers beside it"
    return (Refuse(challenger.name, "no_champion", detail),)


def _is_champion(slot: Slot, challenger: DesiredModel) -> bool:
    if slot.active is None or slot.active.digest == challenger.digest:
        return False
    # one that runs already goes on while the next champion is on probation
    return slot.confirmed is not None


def _is_being_promoted(
    challenger: Slot, wanted: DesiredModel | None, slots: Mapping[str, Slot], desired: Desired
) -> bool:
    """Whether a challenger's bundle is still needed on disk: its model is about to install it."""
    if wanted is None or challenger.active is None or challenger.active.digest != wanted.digest:
        return False
    champion = slots.get(wanted.name, Slot(name=wanted.name))
    return not _is_settled(wanted, champion, wish_of(desired, wanted))


def _try(
    model: DesiredModel, slot: Slot, desired: Desired, now_s: float | None, limits: ProbationConfig
) -> Action:
    if now_s is not None and now_s > desired.expires_s:
        late = int(now_s - desired.expires_s)
        return Refuse(model.name, "expired", f"desired state expired {late} s ago")
    failures = recent_failures(
        slot.failures, model.digest, now_s=now_s, window_s=limits.attempts_window_s
    )
    if failures < limits.max_attempts:
        return Install(model)
    detail = (
        f"{model.version} failed {failures} times within {limits.attempts_window_s:g} s and is "
        f"not tried again; `edgepack-agent release {model.name}` lets it"
    )
    return BreakLoop(model, detail)


def _is_settled(model: DesiredModel, slot: Slot, wish: int) -> bool:
    if slot.held_generation == wish:
        return True
    if slot.active is not None and slot.active.digest == model.digest:
        return True
    return slot.failed_generation == wish and model.digest in slot.failed
