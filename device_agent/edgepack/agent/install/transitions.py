"""The states of one model's install and every way from one to the next.

    idle → fetching → verifying → staging → testing → switching → probation → confirmed
                                                                → shadowing (a challenger)

Each has a failure edge: before the switch to `rejected` (the running model never stopped), after
it to `rolled_back` (the last confirmed one answers again). A challenger answers nobody, so that it
ends in `rejected` too. A person's own way back is the edge `revert`: to what is on disk and was
tried before. Nothing else in the agent knows what follows what.
"""

from enum import StrEnum


class Phase(StrEnum):
    """Where an install stands; `out/reported` carries these words."""

    IDLE = "idle"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    STAGING = "staging"
    TESTING = "testing"
    SWITCHING = "switching"
    PROBATION = "probation"
    CONFIRMED = "confirmed"
    SHADOWING = "shadowing"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class Step(StrEnum):
    """What happened."""

    START = "start"
    DONE = "done"
    FAILED = "failed"
    SHADOW = "shadow"
    REVERT = "revert"


TRANSITIONS: dict[Phase, dict[Step, Phase]] = {
    Phase.IDLE: {Step.START: Phase.FETCHING},
    Phase.FETCHING: {Step.DONE: Phase.VERIFYING, Step.FAILED: Phase.REJECTED},
    Phase.VERIFYING: {Step.DONE: Phase.STAGING, Step.FAILED: Phase.REJECTED},
    Phase.STAGING: {Step.DONE: Phase.TESTING, Step.FAILED: Phase.REJECTED},
    Phase.TESTING: {Step.DONE: Phase.SWITCHING, Step.FAILED: Phase.REJECTED},
    Phase.SWITCHING: {
        Step.DONE: Phase.PROBATION,
        Step.SHADOW: Phase.SHADOWING,
        Step.FAILED: Phase.REJECTED,
    },
    Phase.PROBATION: {
        Step.DONE: Phase.CONFIRMED,
        Step.FAILED: Phase.ROLLED_BACK,
        Step.START: Phase.FETCHING,
        Step.REVERT: Phase.SWITCHING,
    },
    # a confirmed model fails when its files no longer load (a dying disk)
    Phase.CONFIRMED: {
        Step.START: Phase.FETCHING,
        Step.FAILED: Phase.ROLLED_BACK,
        Step.REVERT: Phase.SWITCHING,
    },
    Phase.SHADOWING: {Step.START: Phase.FETCHING, Step.FAILED: Phase.REJECTED},
    Phase.REJECTED: {Step.START: Phase.FETCHING, Step.REVERT: Phase.SWITCHING},
    Phase.ROLLED_BACK: {Step.START: Phase.FETCHING, Step.REVERT: Phase.SWITCHING},
}

IN_PROGRESS = frozenset(
    {Phase.FETCHING, Phase.VERIFYING, Phase.STAGING, Phase.TESTING, Phase.SWITCHING}
)


def after(phase: Phase, step: Step) -> Phase:
    """The phase that follows.

    Raises:
        ValueError: The table has no such edge; a defect of the caller.
    """
    try:
        return TRANSITIONS[phase][step]
    except KeyError:
        raise ValueError(f"no edge from {phase} on {step}") from None
