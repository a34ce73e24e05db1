"""From what a device should run to a signed desired state: merged, never guessed.

What is retained is verified before anything of it is signed again; what only the device reports is
not taken over unless a person says so, because the broker could have forged it. Pure but for
signing; the broker is `edgepack.fleet.publish`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgepack.fleet.devices import DeviceState
from edgepack.fleet.errors import TargetError
from edgepack.trust import DEPLOY, DESIRED_PAYLOAD_TYPE, PrivateKey, Root, SignatureError, dsse
from edgepack.wire.desired import (
    DEFAULT_LIFETIME_S,
    MAX_GENERATION,
    Audience,
    Desired,
    DesiredModel,
    Mode,
    parse_desired,
    render_desired,
)

Change = Callable[[DeviceState, tuple[DesiredModel, ...]], tuple[DesiredModel, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs, and whose signatures count.

    Attributes:
        key: A key of the deploy role.
        root: The root of trust that the devices have.
        more: Further keys of the deploy role, where its threshold is above one.
        retired: Earlier versions of it: what they vouched for may be taken over when asked.
    """

    key: PrivateKey
    root: Root
    more: tuple[PrivateKey, ...] = ()
    retired: tuple[Root, ...] = ()

    def sign(self, desired: Desired) -> bytes:
        """Sign a desired state, and make sure that devices will take it.

        Raises:
            SignatureError: The keys are not enough for the root's deploy role.
            WireError: The state is too large or breaks a rule.
        """
        envelope = dsse.sign(render_desired(desired), DESIRED_PAYLOAD_TYPE, [self.key, *self.more])
        self.verify(envelope)
        return envelope

    def verify(self, envelope: bytes) -> Desired:
        """Give a desired state, once its signature holds.

        Raises:
            SignatureError: The deploy role has not signed it.
            WireError: What it signed is no desired state.
        """
        return parse_desired(self.root.verify(DEPLOY, envelope, DESIRED_PAYLOAD_TYPE))

    def verify_retired(self, envelope: bytes) -> Desired | None:
        """Give a desired state that an earlier root vouched for, or None."""
        for root in reversed(self.retired):
            try:
                return parse_desired(root.verify(DEPLOY, envelope, DESIRED_PAYLOAD_TYPE))
            except SignatureError:
                continue
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePolicy:
    """What happens to models that the command does not name.

    Attributes:
        replace: Drop them: the device shall run only what the command says.
        keep_reported: Where the broker has lost the desired state, keep the models that the
            device reports, trusting the report.
        keep_retired: Take over what a retired deploy key has signed: after a planned rotation,
            never after a theft.
    """

    replace: bool = False
    keep_reported: bool = False
    keep_retired: bool = False


MERGE = MergePolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A desired state for one device.

    Attributes:
        device: The device's id.
        old: Models of the desired state before.
        desired: The new one.
        envelope: The new one, signed.
    """

    device: str
    old: tuple[DesiredModel, ...]
    desired: Desired
    envelope: bytes


def plan(
    state: DeviceState,
    change: Change,
    *,
    model: str,
    signer: Signer,
    prefix: str,
    now_s: int,
    lifetime_s: int = DEFAULT_LIFETIME_S,
    policy: MergePolicy = MERGE,
) -> Plan:
    """Work out the next desired state of a device.

    Args:
        state: What is retained about it.
        change: Makes the new list of models from the old one.
        model: The model that the command is about.
        signer: Who signs.
        prefix: Topic prefix, part of the audience.
        now_s: Seconds since 1970.
        lifetime_s: How long an install may still be started, in seconds.
        policy: What happens to the other models.

    Raises:
        SignatureError: The retained state is not signed by this root's deploy role.
        TargetError: The device reports models that no desired state lists; see `MergePolicy`.
    """
    current = _current(state, signer, prefix, policy)
    old = current.models if current is not None else _reported_models(state, policy)
    models = change(state, () if policy.replace else old)
    if current is None and not policy.replace:
        _check_nothing_lost(state, {model, *(kept.name for kept in models)})
    known = [0] if current is None else [current.generation]
    known += [state.reported.generation] if state.reported is not None else []
    generation = max(known) + 1
    if generation > MAX_GENERATION:
        # A thief made it so. A device that has yet to follow our root begins again with it.
        if state.reported is None or state.reported.root_version >= signer.root.version:
            raise TargetError(
                f"{state.device} reports generation {generation - 1}, the last there is",
                hint="`edgepack root rotate --new deploy` lets it begin again",
            )
        generation = 1
    desired = Desired(
        audience=Audience(prefix=prefix, device=state.device),
        generation=generation,
        issued_s=now_s,
        expires_s=now_s + lifetime_s,
        models=tuple(_asked(one, model, generation, current) for one in models),
    )
    return Plan(device=state.device, old=old, desired=desired, envelope=signer.sign(desired))


def _asked(
    entry: DesiredModel, named: str, generation: int, current: Desired | None
) -> DesiredModel:
    """Say since when an entry is wished: what this command is not about keeps its number.

    A device tries again what failed, and overrules what a person decided there, only for an entry
    that was asked for anew.
    """
    if entry.name == named and not entry.asked:
        return replace(entry, asked=generation)
    before = current.generation if current is not None else generation
    return replace(entry, asked=min(entry.asked or before, generation))


def with_model(models: Sequence[DesiredModel], model: DesiredModel) -> tuple[DesiredModel, ...]:
    """Add an entry, in the place of the one of the same model and mode; a floor never falls.

    What is to be installed ends what is offered, and the challenger that it was.
    """
    floor = max([model.floor, *(old.floor for old in models if old.name == model.name)])
    kept = tuple(old for old in models if not _is_ended(old, model))
    return (*kept, replace(model, floor=floor))


def _is_ended(old: DesiredModel, new: DesiredModel) -> bool:
    if old.name != new.name:
        return False
    if old.mode is new.mode:
        return True
    if new.mode is not Mode.INSTALL:
        return False
    return old.mode is Mode.OFFER or old.digest == new.digest


def without_model(
    models: Sequence[DesiredModel], name: str, mode: Mode | None = None
) -> tuple[DesiredModel, ...]:
    """Leave a model out, or only its entry of one mode."""
    return tuple(model for model in models if model.name != name or mode not in (None, model.mode))


def _current(
    state: DeviceState, signer: Signer, prefix: str, policy: MergePolicy
) -> Desired | None:
    if state.desired_envelope is None:
        return None
    try:
        desired = signer.verify(state.desired_envelope)
    except SignatureError as exc:
        if policy.replace:
            return None
        retired = signer.verify_retired(state.desired_envelope)
        if retired is None or not policy.keep_retired:
            keep = " --keep-retired takes over what an earlier root.json vouched for (never after"
            raise SignatureError(
                f"the desired state of device {state.device} on the broker is not to be trusted: "
                f"{exc}; --replace drops it and every model in it"
                f"{',' + keep + ' a theft)' if retired is not None else ''}"
            ) from exc
        desired = retired
    if desired.audience != Audience(prefix=prefix, device=state.device) and not policy.replace:
        raise TargetError(
            f"the desired state of device {state.device} on the broker is meant for "
            f"{desired.audience.device or desired.audience.group} under {desired.audience.prefix}",
            hint="somebody copied it there; --replace drops it and every model in it",
        )
    return desired


def _reported_models(state: DeviceState, policy: MergePolicy) -> tuple[DesiredModel, ...]:
    """The models that a device reports; it has them on disk, so no source is named."""
    if state.reported is None or not policy.keep_reported:
        return ()
    return tuple(
        DesiredModel(
            name=model.name,
            version=model.active.version,
            digest=model.active.digest,
            floor=min(model.floor, model.active.sequence),
        )
        for model in state.reported.models
        if model.active is not None
    )


def _check_nothing_lost(state: DeviceState, named: set[str]) -> None:
    """A broker that forgot its retained messages must not make a device forget its models."""
    if state.reported is None or state.reported.generation == 0:
        return
    lost = sorted({model.name for model in state.reported.models if model.active} - named)
    if lost:
        raise TargetError(
            f"device {state.device} runs {', '.join(lost)}, but the broker retains no desired "
            "state that lists it: deploying would remove it",
            hint="--keep-reported keeps what the device reports, --replace removes it",
        )
