"""What a slot's change is told as: events `transition`, `self_test`, `hold`, `rollback`. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgepack.agent.install.slot import Installed, Slot
from edgepack.wire.messages import Scalar

Fields = Mapping[str, Scalar | None]


def slot_events(before: Slot | None, slot: Slot, chained: Fields) -> Iterator[tuple[str, Fields]]:
    """Kinds and fields of the events that tell of a slot's change.

    Args:
        before: The slot until now, if there was one.
        slot: As it is now.
        chained: Where the signed form of the change stands.
    """
    known = [replace(one, proven=False) for one in before.kept()] if before else []
    if slot.active is not None and replace(slot.active, proven=False) not in known:
        yield "self_test", _self_test(slot, slot.active)
    about = slot.active if slot.active and slot.active.digest == slot.target else None
    yield (
        "transition",
        {
            "model": slot.name,
            "shadow": True if slot.shadow else None,
            "phase": slot.phase.value,
            "digest": slot.target,
            "model_version": about.release.version if about else None,
            "variant": about.variant if about else None,
            "reason": slot.reason or None,
            "detail": slot.detail or None,
            **chained,
        },
    )
    if slot.hold != (before.hold if before is not None else ""):
        yield (
            "hold",
            {
                "model": slot.name,
                "held": slot.held_generation is not None,
                "hold": slot.hold.value or None,
                "digest": slot.active.digest if slot.active else None,
                "model_version": slot.active.release.version if slot.active else None,
            },
        )
    if slot.phase.value == "rolled_back":
        yield "rollback", {"model": slot.name, "digest": slot.target, "reason": slot.reason}


def _self_test(slot: Slot, installed: Installed) -> Fields:
    return {
        "model": slot.name,
        "shadow": True if slot.shadow else None,
        "digest": installed.digest,
        "model_version": installed.release.version,
        "variant": installed.variant,
        "device_fingerprint": installed.fingerprint or None,
        "not_chosen": "; ".join(installed.not_chosen) or None,
        **installed.self_test,
    }
