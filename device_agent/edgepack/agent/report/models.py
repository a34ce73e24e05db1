"""What `out/reported` and `edgepack-agent status` say of each model. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from edgepack.agent.install.slot import Slot, shadow_key
from edgepack.agent.install.transitions import Phase
from edgepack.agent.serve.registry import Mirror
from edgepack.wire.desired import Desired, Mode
from edgepack.wire.messages import Offered, ReportedModel, ReportedShadow


def reported_models(
    slots: Iterable[Slot],
    desired: Desired | None,
    mirrors: Mapping[str, Mirror],
) -> tuple[ReportedModel, ...]:
    """One entry for each model that is here, is being installed, or is offered.

    Args:
        slots: Of models and challengers.
        desired: The accepted desired state, for what it offers.
        mirrors: The running challengers, by model.
    """
    by_key = {slot.key: slot for slot in slots}
    offered = _offered(desired) if desired is not None else {}
    reported = []
    for name in sorted({slot.name for slot in by_key.values()} | offered.keys()):
        slot = by_key.get(name)
        offer = offered.get(name)
        if slot is None:
            model = ReportedModel(name=name, phase=Phase.IDLE.value)
        else:
            model = slot.reported()
            if offer is not None and slot.active and slot.active.digest == offer.digest:
                offer = None  # somebody took it
        shadow = by_key.get(shadow_key(name))
        challenger = _shadow(shadow, mirrors.get(name)) if shadow is not None else None
        reported.append(replace(model, offered=offer, shadow=challenger))
    return tuple(reported)


def _offered(desired: Desired) -> dict[str, Offered]:
    return {
        model.name: Offered(
            digest=model.digest,
            version=model.version,
            size_bytes=model.archive_size_bytes,
            expires_s=desired.expires_s,
        )
        for model in desired.models
        if model.mode is Mode.OFFER
    }


def _shadow(slot: Slot, mirror: Mirror | None) -> ReportedShadow:
    reported = ReportedShadow(
        phase=slot.phase.value,
        target=slot.target,
        active=slot.active.release if slot.active else None,
        variant=slot.active.variant if slot.active else "",
        reason=slot.reason,
        detail=slot.detail,
    )
    if mirror is None:
        return reported
    return replace(
        reported,
        requests=mirror.requests,
        dropped=mirror.dropped,
        errors=mirror.errors,
        figures=mirror.figures(),
    )
