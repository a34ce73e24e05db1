"""Take a model away from devices, or send them back to the version before."""

from edgepack.fleet.desired_state import MERGE, MergePolicy, Plan, with_model, without_model
from edgepack.fleet.devices import DeviceState, Targets, find_devices
from edgepack.fleet.errors import TargetError
from edgepack.fleet.follow import Goal
from edgepack.fleet.operator import Operator, Outcome, carry_out, connections, plan_all
from edgepack.fleet.sweep import sweep
from edgepack.wire.desired import DesiredModel, Mode
from edgepack.wire.messages import Release, ReportedModel
from edgepack.wire.topics import check_id


async def remove(
    operator: Operator,
    model: str,
    targets: Targets,
    *,
    keep_blobs: bool = False,
    policy: MergePolicy = MERGE,
    mode: Mode | None = None,
) -> Outcome:
    """Take a model away from devices, or only its offer or its challenger.

    Args:
        operator: Who, through which broker, and how long to wait.
        model: The model's name.
        targets: From which devices.
        keep_blobs: Leave its blobs on the broker.
        policy: What happens to the devices' other models.
        mode: The entry to take away; None takes the model itself and all that goes with it.

    Raises:
        TargetError: No such devices, or none of them has the model.
        SignatureError, BrokerError: As `deploy`.
    """
    check_id(model, what="model name")
    async with connections(operator) as (client, follower):
        states = await find_devices(client, operator.prefix, targets)
        plans = plan_all(
            operator,
            states,
            lambda _, models: without_model(models, model, mode),
            model=model,
            policy=policy,
        )
        plans = _concerned(plans, states, model)
        goals = [
            Goal(
                device=plan.device,
                model=model,
                digest=None,
                generation=plan.desired.generation,
                mode=mode or Mode.INSTALL,
            )
            for plan in plans
        ]
        devices = await carry_out(operator, client, follower, plans, goals)
        if not keep_blobs:
            gone = [
                entry
                for plan in plans
                for entry in plan.old
                if entry.name == model and entry not in plan.desired.models
            ]
            await sweep(client, operator.prefix, gone)
    return Outcome(
        model=model,
        digest=None,
        version="",
        generations={plan.device: plan.desired.generation for plan in plans},
        devices=devices,
    )


async def rollback(
    operator: Operator,
    model: str,
    targets: Targets,
    *,
    policy: MergePolicy = MERGE,
) -> Outcome:
    """Send devices back to the version that they ran before, which they still have on disk.

    Which version that is, only the devices can say; the broker could lie about it, but only within
    what the device has kept and verified itself.

    Args:
        operator: Who, through which broker, and how long to wait.
        model: The model's name.
        targets: Which devices.
        policy: What happens to the devices' other models.

    Raises:
        TargetError: No such devices, or one has no version before.
        SignatureError, BrokerError: As `deploy`.
    """
    check_id(model, what="model name")
    async with connections(operator) as (client, follower):
        states = await find_devices(client, operator.prefix, targets)
        before = {state.device: _previous(state, model) for state in states}

        def back(state: DeviceState, models: tuple[DesiredModel, ...]) -> tuple[DesiredModel, ...]:
            return _back_to(before[state.device], model, state.device, models)

        plans = plan_all(operator, states, back, model=model, policy=policy)
        goals = [
            Goal(
                device=plan.device,
                model=model,
                digest=before[plan.device].digest,
                generation=plan.desired.generation,
            )
            for plan in plans
        ]
        devices = await carry_out(operator, client, follower, plans, goals)
    digests = {release.digest for release in before.values()}
    return Outcome(
        model=model,
        digest=digests.pop() if len(digests) == 1 else None,
        version=", ".join(sorted({release.version for release in before.values()})),
        generations={plan.device: plan.desired.generation for plan in plans},
        devices=devices,
    )


def _concerned(plans: list[Plan], states: tuple[DeviceState, ...], model: str) -> list[Plan]:
    """Leave devices alone that neither should have nor report the model."""
    reporting = {state.device for state in states if _reported(state, model) is not None}
    kept = [
        plan
        for plan in plans
        if plan.device in reporting or model in {entry.name for entry in plan.old}
    ]
    if not kept:
        raise TargetError(f"none of {len(plans)} devices has a model {model!r}")
    return kept


def _back_to(
    release: Release, model: str, device: str, models: tuple[DesiredModel, ...]
) -> tuple[DesiredModel, ...]:
    entry = DesiredModel(name=model, version=release.version, digest=release.digest)
    changed = with_model(models, entry)
    floor = changed[-1].floor
    if release.sequence < floor:
        raise TargetError(
            f"{model} {release.version} on {device} has the sequence {release.sequence}, "
            f"below the floor {floor}: the device would refuse it"
        )
    return changed


def _previous(state: DeviceState, model: str) -> Release:
    reported = _reported(state, model)
    if reported is None:
        raise TargetError(f"device {state.device} reports no model {model!r}")
    if reported.previous is None:
        raise TargetError(
            f"device {state.device} has no version of {model!r} before the one that it runs"
        )
    return reported.previous


def _reported(state: DeviceState, model: str) -> ReportedModel | None:
    models = state.reported.models if state.reported is not None else ()
    return next((one for one in models if one.name == model), None)
