"""Send a bundle to devices: check it, put it where they fetch it, say that they shall run it."""

from collections.abc import Iterable
from dataclasses import dataclass

import aiomqtt

from edgepack.bundle import Bundle, verify_bundle
from edgepack.fleet.blobs import publish_blobs
from edgepack.fleet.desired_state import MERGE, MergePolicy, Plan, with_model
from edgepack.fleet.devices import DeviceState, Targets, find_devices
from edgepack.fleet.errors import TargetError
from edgepack.fleet.follow import Goal
from edgepack.fleet.operator import Operator, Outcome, carry_out, connections, plan_all
from edgepack.fleet.remarks import remarks
from edgepack.fleet.sources import MQTT_SOURCE, sources_of
from edgepack.fleet.sweep import sweep
from edgepack.wire.desired import BlobRef, Desired, DesiredModel, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """How to deploy.

    Attributes:
        via: Where devices fetch the bundle instead of from the broker, in order; see
            `edgepack.fleet.sources`.
        floor: Smallest signing sequence that the devices shall accept of this model from now on.
        check: Verify the bundle against the root before sending it.
        keep_blobs: Leave blobs of the versions that this one replaces on the broker.
        policy: What happens to the devices' other models.
        mode: Install it; offer it, for a person to ask for; or let it be the model's challenger.
    """

    via: tuple[str, ...] = ()
    floor: int = 0
    check: bool = True
    keep_blobs: bool = False
    policy: MergePolicy = MERGE
    mode: Mode = Mode.INSTALL


async def deploy(
    operator: Operator,
    bundle: Bundle,
    targets: Targets,
    options: DeployOptions | None = None,
) -> Outcome:
    """Deploy a bundle.

    Args:
        operator: Who, through which broker, and how long to wait.
        bundle: What.
        targets: To which devices.
        options: How.

    Returns:
        What it came to. A device's refusal is in it, see `Outcome.raise_refusals`.

    Raises:
        UntrustedBundleError: The root does not vouch for the bundle.
        SignatureError: A retained desired state, or our own, is not what the root demands.
        TargetError: No such devices, or an option that devices could not follow.
        BrokerError: The broker; OvertakenError and WaitTimeoutError among it.
    """
    options = options or DeployOptions()
    sequence = None
    if options.check:
        sequence = verify_bundle(bundle, operator.signer.root).sequence
        if options.floor > sequence:
            raise TargetError(
                f"floor must be at most this bundle's own sequence {sequence}, got {options.floor}"
            )
    entry = desired_model(
        bundle, sources_of(bundle, options.via), floor=options.floor, mode=options.mode
    )
    async with connections(operator) as (client, follower):
        states = await find_devices(client, operator.prefix, targets)
        _note_strangers(operator, states)
        plans = plan_all(
            operator,
            states,
            lambda _, models: with_model(models, entry),
            model=entry.name,
            policy=options.policy,
        )
        for state, plan in zip(states, plans, strict=True):
            version = operator.signer.root.version
            for line in remarks(
                state, plan.old, root_version=version, model=entry.name, sequence=sequence
            ):
                operator.on_note(line)
        sent_bytes = 0
        if MQTT_SOURCE in entry.sources:
            upload = await publish_blobs(
                client,
                operator.prefix,
                bundle.blobs(),
                bundle.read_blob,
                on_progress=operator.on_upload,
            )
            sent_bytes = upload.sent_bytes
        goals = [
            Goal(
                device=plan.device,
                model=entry.name,
                digest=entry.digest,
                mode=entry.mode,
                generation=plan.desired.generation,
            )
            for plan in plans
        ]
        devices = await carry_out(operator, client, follower, plans, goals)
        if not options.keep_blobs:
            await _clear_replaced(operator, client, plans, entry)
    return Outcome(
        model=entry.name,
        digest=entry.digest,
        version=entry.version,
        generations={plan.device: plan.desired.generation for plan in plans},
        devices=devices,
        sent_bytes=sent_bytes,
    )


def desired_model(
    bundle: Bundle, sources: Iterable[str], *, floor: int = 0, mode: Mode = Mode.INSTALL
) -> DesiredModel:
    """The entry of a desired state that asks for a bundle."""
    return DesiredModel(
        name=bundle.contract.name,
        version=bundle.contract.version,
        digest=bundle.digest,
        manifest_size_bytes=bundle.manifest_blob.size_bytes,
        archive_size_bytes=bundle.size_bytes,
        signatures=tuple(
            BlobRef(digest=ref.manifest.digest, size_bytes=ref.manifest.size_bytes)
            for ref in bundle.signatures
        ),
        sources=tuple(sources),
        floor=floor,
        mode=mode,
    )


def _note_strangers(operator: Operator, states: tuple[DeviceState, ...]) -> None:
    strangers = [state.device for state in states if not state.seen]
    if strangers:
        operator.on_note(
            f"{', '.join(strangers)}: never seen under {operator.prefix}; "
            "the desired state waits on the broker"
        )


async def _clear_replaced(
    operator: Operator, client: aiomqtt.Client, plans: list[Plan], entry: DesiredModel
) -> None:
    replaced = [
        model
        for plan in plans
        for model in plan.old
        if model.name == entry.name and model.digest not in _digests(plan.desired)
    ]
    await sweep(client, operator.prefix, replaced)


def _digests(desired: Desired) -> set[str]:
    return {model.digest for model in desired.models}
