"""What the agent remembers of one model, and how each step changes it. Pure values."""

from dataclasses import dataclass, field, replace

from edgepack.agent.install.transitions import IN_PROGRESS, Phase, Step, after
from edgepack.runtime.options import SessionOptions
from edgepack.wire.messages import Release, ReportedModel

MAX_UNCLEAN_EXITS = 2
_MAX_DETAIL = 500
_FAILED_KEPT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A bundle that is in the store and passed its self-test here.

    Attributes:
        release: Digest, version, sequence.
        variant: The variant that the self-test chose.
        signatures: Digests of the signature manifests that it was accepted with.
        self_test: Figures of that variant.
        options: How it runs: what the self-test found best on this device.
        not_chosen: What else was tried, and why it was not taken; a line each.
        fingerprint: Of the engines and the processor that it was tested on.
    """

    release: Release
    variant: str
    signatures: tuple[str, ...] = ()
    self_test: dict[str, float] = field(default_factory=dict)
    options: SessionOptions = field(default_factory=SessionOptions)
    not_chosen: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def digest(self) -> str:
        """The bundle digest."""
        return self.release.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The state of one model.

    Attributes:
        name: The model's name.
        phase: Where the install of `target` stands.
        target: Digest that `phase` is about.
        active: What answers; previous: what answered before; confirmed: the last proven one.
        reason, detail: Why the last install failed, for machines and for people.
        failed: Digests refused under `failed_generation`; not tried again until it changes.
        failed_generation: The generation of the desired state that they failed under.
        held_generation: While the desired state has this generation, a local decision stands.
        managed: True when the desired state brought the model; then it may also remove it.
        floor: Smallest sequence that is accepted; only ever rises.
        unclean_exits: Agent crashes during this probation.
    """

    name: str
    phase: Phase = Phase.IDLE
    target: str = ""
    active: Installed | None = None
    previous: Installed | None = None
    confirmed: Installed | None = None
    reason: str = ""
    detail: str = ""
    failed: tuple[str, ...] = ()
    failed_generation: int = 0
    held_generation: int | None = None
    managed: bool = False
    floor: int = 0
    unclean_exits: int = 0

    def start(self, target: str) -> "Slot":
        """Begin to install `target`; what is active goes on."""
        return replace(
            self,
            phase=after(self.phase, Step.START),
            target=target,
            reason="",
            detail="",
        )

    def advance(self) -> "Slot":
        """The phase's work is done: on to the next."""
        return replace(self, phase=after(self.phase, Step.DONE))

    def reject(self, reason: str, detail: str, generation: int) -> "Slot":
        """`target` is refused; what is active goes on."""
        return replace(
            self._failed(generation, self.target),
            phase=after(self.phase, Step.FAILED),
            reason=reason,
            detail=detail[:_MAX_DETAIL],
        )

    def switch(self, installed: Installed) -> "Slot":
        """`installed` answers from now on, on probation."""
        previous = self.active if self.active and self.active.digest != installed.digest else None
        return replace(
            self.advance(),
            active=installed,
            previous=previous or self.previous,
            unclean_exits=0,
        )

    def confirm(self, detail: str, floor: int) -> "Slot":
        """The active one is proven; the floor that came with it holds from now on.

        A later version may have been rejected meanwhile: then the phase goes on saying so.
        """
        moved = replace(self.advance(), detail=detail) if self.phase is Phase.PROBATION else self
        return replace(moved, confirmed=self.active, floor=max(self.floor, floor))

    def roll_back(self, reason: str, detail: str, generation: int) -> "Slot":
        """The active one failed; the last confirmed one (or nothing) answers again."""
        failed = self.active.digest if self.active else self.target
        back = (
            self.confirmed if self.confirmed and self.confirmed.digest != failed else self.previous
        )
        if back is not None and back.digest == failed:
            back = None
        return replace(
            self._failed(generation, failed),
            phase=after(self.phase, Step.FAILED),
            target=failed,
            active=back,
            previous=None,
            confirmed=back
            if self.confirmed and self.confirmed.digest == failed
            else self.confirmed,
            reason=reason,
            detail=detail[:_MAX_DETAIL],
            unclean_exits=0,
        )

    def recover(self, *, unclean: bool) -> "Slot":
        """What the slot is after a restart of the agent.

        An install that was under way starts anew from the desired state; a probation goes on, and
        a crash during it is counted.
        """
        slot = self
        if self.phase in IN_PROGRESS:
            phase = Phase.IDLE if self.active is None else Phase.CONFIRMED
            if self.is_unproven:
                phase = Phase.PROBATION
            target = self.active.digest if self.active else ""
            slot = replace(self, phase=phase, target=target)
        if unclean and self.is_unproven:
            slot = replace(slot, unclean_exits=self.unclean_exits + 1)
        return slot

    @property
    def is_unproven(self) -> bool:
        """Whether what answers is still on probation, whatever became of a later version."""
        return self.active is not None and self.active != self.confirmed

    def reported(self) -> ReportedModel:
        """The slot as `out/reported` shows it."""
        return ReportedModel(
            name=self.name,
            phase=self.phase.value,
            target=self.target,
            active=self.active.release if self.active else None,
            previous=self.previous.release if self.previous else None,
            confirmed=self.confirmed.release if self.confirmed else None,
            variant=self.active.variant if self.active else "",
            reason=self.reason,
            detail=self.detail,
            held=self.held_generation is not None,
            self_test=self.active.self_test if self.active else {},
            floor=self.floor,
        )

    def kept(self) -> tuple[Installed, ...]:
        """The bundles that must stay on disk."""
        return tuple(item for item in (self.active, self.previous, self.confirmed) if item)

    def _failed(self, generation: int, digest: str) -> "Slot":
        earlier = self.failed if self.failed_generation == generation else ()
        failed = earlier if digest in earlier else (*earlier, digest)
        return replace(self, failed=failed[-_FAILED_KEPT:], failed_generation=generation)
