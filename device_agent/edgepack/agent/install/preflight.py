"""Whether a bundle can be installed here at all, decided before the first byte of its weights.

Pure: what the device has is looked up by `device_facts`. What only running a model can show is
the self-test's.
"""

from collections.abc import Mapping
from dataclasses import field

from edgepack.bundle.contract import Contract, Variant
from edgepack.runtime.engine import Abilities
from edgepack.trust.values import dataclass

HEADROOM_BYTES = 16 * 1024 * 1024
HEADROOM_SHARE = 0.02  # of the bundle's missing bytes: folders, the journal
HEADROOM_INODES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What an install takes.

    Attributes:
        size_bytes: Bytes of its blobs that are not on the device yet.
        files: How many blobs those are.
    """

    size_bytes: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What is known of the engine that a variant asks for.

    Attributes:
        missing: Why it is not there, or "".
        unsupported: What of the variant it says that it cannot run, or "".
        abilities: Its operators, or None where it does not tell.
    """

    missing: str = ""
    unsupported: str = ""
    abilities: Abilities | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the device has.

    Attributes:
        free_bytes: Free space where bundles are stored.
        free_inodes: Free files there, None where the file system does not count them.
        memory_bytes: Memory that this process may use at most.
        classes: What the device calls itself.
        engines: By name of the variant that asks for one.
    """

    free_bytes: int
    free_inodes: int | None
    memory_bytes: int
    classes: frozenset[str] = frozenset()
    engines: Mapping[str, EngineFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why not.

    Attributes:
        reason: A word of the table in docs/operations.md.
        detail: One line.
    """

    reason: str
    detail: str


def judge_space(need: Need, facts: DeviceFacts) -> Refusal | None:
    """Whether the disk takes it, with some room left over."""
    wanted = need.size_bytes + HEADROOM_BYTES + int(need.size_bytes * HEADROOM_SHARE)
    if facts.free_bytes < wanted:
        return Refusal(
            reason="disk_full", detail=f"{wanted} bytes must be free, got {facts.free_bytes}"
        )
    files = 2 * need.files + HEADROOM_INODES  # a part, and its link for the verification
    if facts.free_inodes is not None and facts.free_inodes < files:
        return Refusal(
            reason="inodes", detail=f"{files} files must be free, got {facts.free_inodes}"
        )
    return None


def judge_contract(contract: Contract, facts: DeviceFacts) -> Refusal | None:
    """Whether the device is one that the contract asks for, and can run one of the variants."""
    classes = contract.device.device_classes
    if classes and facts.classes.isdisjoint(classes):
        return Refusal(
            reason="device_class",
            detail=f"device class must be one of {', '.join(classes)[:200]}, "
            f"got {', '.join(sorted(facts.classes)) or 'none'}",
        )
    minimum = contract.device.min_memory_bytes or 0
    if facts.memory_bytes < minimum:
        return Refusal(
            reason="memory",
            detail=f"memory must be at least {minimum} bytes, got {facts.memory_bytes}",
        )
    refusals = [_judge_variant(variant, facts) for variant in contract.variants]
    refused = [refusal for refusal in refusals if refusal is not None]
    if len(refused) < len(refusals):
        return None
    first = min(refused, key=lambda refusal: _PREFERENCE.index(refusal.reason))
    return Refusal(
        reason=first.reason, detail="; ".join(refusal.detail for refusal in refused)[:500]
    )


# Of several variants' reasons the one that says most about what to do.
_PREFERENCE = ("memory", "unsupported", "engine_missing")


def _judge_variant(variant: Variant, facts: DeviceFacts) -> Refusal | None:
    engine = facts.engines.get(variant.name, EngineFacts())
    if engine.missing:
        return Refusal(reason="engine_missing", detail=f"{variant.name}: {engine.missing}")
    lacking = engine.unsupported or _lacking(variant, engine.abilities)
    if lacking:
        return Refusal(reason="unsupported", detail=f"{variant.name}: {lacking}")
    if variant.size_bytes > facts.memory_bytes:
        return Refusal(
            reason="memory",
            detail=f"{variant.name}: {variant.size_bytes} bytes of weights must fit into memory, "
            f"got {facts.memory_bytes}",
        )
    return None


def _lacking(variant: Variant, abilities: Abilities | None) -> str:
    if abilities is None:
        return ""
    for domain, opset in sorted(variant.engine.opsets.items()):
        newest = abilities.opsets.get(domain)
        if newest is None:
            return f"operators of domain {domain[:64]!r} are needed, which the engine lacks"
        if opset > newest:
            name = domain[:64] or "ai.onnx"
            return f"opset {opset} of {name} is needed, the engine has {newest}"
    missing = sorted(set(variant.engine.operators) - abilities.operators)
    if missing:
        return f"operators {', '.join(missing)[:200]} are needed, which the engine lacks"
    return ""
