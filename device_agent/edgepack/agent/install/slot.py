"""What the agent remembers of one model, and how each step changes it. Pure values."""

from dataclasses import field, replace
from enum import StrEnum

from edgepack.agent.install.judge import Figures
from edgepack.agent.install.transitions import IN_PROGRESS, Phase, Step, after
from edgepack.agent.install.tries import Failures, with_failure
from edgepack.runtime.options import SessionOptions
from edgepack.trust.values import dataclass
from edgepack.wire.messages import Release, ReportedModel

MAX_UNCLEAN_EXITS = 2
_MAX_DETAIL = 500
_FAILED_KEPT = 16
_SHADOW_SUFFIX = "~shadow"  # no model name has a "~"


class Hold(StrEnum):
    """The local decision that overrules the desired state; "" for none."""

    NONE = ""
    INSTALL = "install"
    ROLLBACK = "rollback"


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
        proven: Whether it ever passed its probation here.
    """

    release: Release
    variant: str
    signatures: tuple[str, ...] = ()
    self_test: dict[str, float] = field(default_factory=dict)
    options: SessionOptions = field(default_factory=SessionOptions)
    not_chosen: tuple[str, ...] = ()
    fingerprint: str = ""
    proven: bool = False

    @property
    def digest(self) -> str:
        """The bundle digest."""
        return self.release.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The state of one model, or of the challenger beside it.

    Attributes:
        name: The model's name.
        shadow: True for the challenger: it sees the same inputs, and nobody sees its answers.
        phase: Where the install of `target` stands.
        target: Digest that `phase` is about.
        active: What answers; previous: what answered before; confirmed: the last proven one.
        reason, detail: Why the last install failed, for machines and for people.
        wish: Generation in which the desired state last changed its mind about this model.
        failed: Digests refused under `failed_generation`; not tried again until it changes.
        failed_generation: The wish that they failed under.
        failures: When versions failed, across wishes: the loop breaker's memory.
        held_generation: While the wish has this generation, a local decision stands.
        hold: Which decision that is.
        consent: Digest of an offered version that a person asked for.
        consent_by: How: "cmd" over the broker, "local" on the device.
        managed: True when the desired state brought the model; then it may also remove it.
        floor: Smallest sequence that is accepted; only ever rises.
        unclean_exits: Agent crashes during this probation.
        baseline: How the confirmed version did, for the probation of the next.
        tried: What earlier starts of the agent counted of this probation, and tried_s for how long.
    """

    name: str
    shadow: bool = False
    phase: Phase = Phase.IDLE
    target: str = ""
    active: Installed | None = None
    previous: Installed | None = None
    confirmed: Installed | None = None
    reason: str = ""
    detail: str = ""
    wish: int = 0
    failed: tuple[str, ...] = ()
    failed_generation: int = 0
    failures: tuple[Failures, ...] = ()
    held_generation: int | None = None
    hold: Hold = Hold.NONE
    consent: str = ""
    consent_by: str = ""
    managed: bool = False
    floor: int = 0
    unclean_exits: int = 0
    baseline: Figures | None = None
    tried: Figures = field(default_factory=Figures)
    tried_s: float = 0.0

    @property
    def key(self) -> str:
        """What tells it from every other slot of the device."""
        return shadow_key(self.name) if self.shadow else self.name

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

    def reject(self, reason: str, detail: str, generation: int, *, now_s: float = 0.0) -> "Slot":
        """`target` is refused; what is active goes on, but for a challenger."""
        return replace(
            self._failed(generation, self.target, now_s),
            phase=after(self.phase, Step.FAILED),
            active=None if self.shadow else self.active,
            reason=reason,
            detail=detail[:_MAX_DETAIL],
        )

    def break_loop(self, target: str, detail: str, generation: int) -> "Slot":
        """`target` failed too often to be tried under this wish, or any, until a person says so."""
        earlier = self.failed if self.failed_generation == generation else ()
        broken = replace(self.start(target), reason="loop_broken", detail=detail[:_MAX_DETAIL])
        return replace(
            broken,
            phase=after(broken.phase, Step.FAILED),
            active=None if self.shadow else self.active,
            failed=(*earlier, target)[-_FAILED_KEPT:],
            failed_generation=generation,
        )

    def switch(self, installed: Installed, baseline: Figures | None = None) -> "Slot":
        """`installed` answers from now on, on probation."""
        previous = self.active if self.active and self.active.digest != installed.digest else None
        return replace(
            self.advance(),
            active=installed,
            previous=previous or self.previous,
            unclean_exits=0,
            baseline=baseline,
            tried=Figures(),
            tried_s=0.0,
        )

    def cast_shadow(self, installed: Installed) -> "Slot":
        """`installed` sees what the champion sees from now on."""
        return replace(self, phase=after(self.phase, Step.SHADOW), active=installed)

    def confirm(self, detail: str, floor: int) -> "Slot":
        """The active one is proven; the floor that came with it holds from now on.

        A later version may have been rejected meanwhile: then the phase goes on saying so.
        """
        moved = replace(self.advance(), detail=detail) if self.phase is Phase.PROBATION else self
        proven = replace(self.active, proven=True) if self.active else None
        return replace(
            moved,
            active=proven,
            confirmed=proven,
            floor=max(self.floor, floor),
            baseline=None,
            tried=Figures(),
            tried_s=0.0,
        )

    def revert(self, target: str) -> "Slot":
        """A person goes back to `target`, which is on disk; `switch` comes next."""
        return replace(
            self, phase=after(self.phase, Step.REVERT), target=target, reason="", detail=""
        )

    def consents(self, digest: str, by: str) -> "Slot":
        """A person asks for an offered version; an earlier decision no longer stands."""
        return replace(
            self,
            consent=digest,
            consent_by=by,
            managed=True,
            held_generation=None,
            hold=Hold.NONE,
            failed=tuple(one for one in self.failed if one != digest),
        )

    def held_by(self, hold: Hold) -> "Slot":
        """From now on this decision stands, until the desired state changes its mind."""
        return replace(self, held_generation=self.wish, hold=hold, consent="")

    def released(self) -> "Slot":
        """No local decision stands, and what failed may be tried again."""
        return replace(self, held_generation=None, hold=Hold.NONE, failed=(), failures=())

    def roll_back(self, reason: str, detail: str, generation: int, *, now_s: float = 0.0) -> "Slot":
        """The active one failed; the last confirmed one (or nothing) answers again."""
        failed = self.active.digest if self.active else self.target
        back = (
            self.confirmed if self.confirmed and self.confirmed.digest != failed else self.previous
        )
        if back is not None and back.digest == failed:
            back = None
        proven = self.confirmed
        if proven is not None and proven.digest == failed:
            proven = back if back is not None and back.proven else None
        return replace(
            self._failed(generation, failed, now_s),
            phase=after(self.phase, Step.FAILED),
            target=failed,
            active=back,
            previous=None,
            confirmed=proven,
            reason=reason,
            detail=detail[:_MAX_DETAIL],
            unclean_exits=0,
            baseline=None if back == self.confirmed else self.baseline,
            tried=Figures(),
            tried_s=0.0,
        )

    def recover(self, *, unclean: bool) -> "Slot":
        """What the slot is after a restart of the agent.

        An install that was under way starts anew from the desired state; a probation goes on, and
        a crash during it is counted.
        """
        slot = self
        if self.phase in IN_PROGRESS:
            target = self.active.digest if self.active else ""
            slot = replace(self, phase=self._phase_of_active(), target=target)
        if unclean and self.is_unproven:
            slot = replace(slot, unclean_exits=self.unclean_exits + 1)
        return slot

    @property
    def is_unproven(self) -> bool:
        """Whether what answers is still on probation, whatever became of a later version."""
        return not self.shadow and self.active is not None and self.active != self.confirmed

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
            hold=self.hold.value,
            self_test=self.active.self_test if self.active else {},
            floor=self.floor,
        )

    def retested(self, installed: Installed) -> "Slot":
        """What answers was tested again on this device, and stays as proven as it was."""
        confirmed = self.confirmed
        if confirmed is not None and confirmed.digest == installed.digest:
            confirmed = replace(installed, proven=confirmed.proven)
        return replace(self, active=installed, confirmed=confirmed)

    def kept(self) -> tuple[Installed, ...]:
        """The bundles that must stay on disk."""
        return tuple(item for item in (self.active, self.previous, self.confirmed) if item)

    def _phase_of_active(self) -> Phase:
        if self.active is None:
            return Phase.IDLE
        if self.shadow:
            return Phase.SHADOWING
        return Phase.PROBATION if self.is_unproven else Phase.CONFIRMED

    def _failed(self, generation: int, digest: str, now_s: float) -> "Slot":
        earlier = self.failed if self.failed_generation == generation else ()
        failed = earlier if digest in earlier else (*earlier, digest)
        return replace(
            self,
            failed=failed[-_FAILED_KEPT:],
            failed_generation=generation,
            failures=with_failure(self.failures, digest, now_s),
            consent="" if self.consent == digest else self.consent,
        )


def shadow_key(name: str) -> str:
    """The key of the slot of a model's challenger."""
    return name + _SHADOW_SUFFIX
