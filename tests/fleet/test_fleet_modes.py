"""Offers and challengers, as an operator makes and follows them. Pure."""

from dataclasses import replace

import pytest

from edgepack.cli.watch import cells
from edgepack.fleet.desired_state import with_model, without_model
from edgepack.fleet.follow import Goal, Verdict, judge
from edgepack.fleet.watch import FleetView
from edgepack.wire.desired import DesiredModel, Mode
from edgepack.wire.messages import (
    Offered,
    Release,
    Reported,
    ReportedModel,
    ReportedShadow,
    render_reported,
)

A, B = ("sha256:" + letter * 64 for letter in "ab")


def entry(digest, mode=Mode.INSTALL, **fields):
    return DesiredModel(name="m", version="1.0.0", digest=digest, mode=mode, **fields)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([entry(A)], entry(B), [entry(B)]),
        ([entry(A)], entry(B, Mode.OFFER), [entry(A), entry(B, Mode.OFFER)]),
        ([entry(A)], entry(B, Mode.SHADOW), [entry(A), entry(B, Mode.SHADOW)]),
        ([entry(A), entry(B, Mode.SHADOW)], entry(B), [entry(B)]),  # promoted
        ([entry(A), entry(A, Mode.SHADOW)], entry(B), [entry(A, Mode.SHADOW), entry(B)]),
        ([entry(A), entry(B, Mode.OFFER)], entry(A), [entry(A)]),  # the newer word
        (
            [entry(A, floor=7)],
            entry(B, Mode.OFFER),
            [entry(A, floor=7), entry(B, Mode.OFFER, floor=7)],
        ),
    ],
)
def test_what_an_entry_ends(old, new, expected):
    """One of each mode; what is to be installed ends the offer and the challenger it was."""
    assert tuple(expected) == with_model(old, new)


def test_taking_away_one_entry_or_all():
    """The offer alone, or the model with all that goes with it."""
    models = [entry(A), entry(B, Mode.OFFER), entry(B, Mode.SHADOW)]
    assert (models[0], models[2]) == without_model(models, "m", Mode.OFFER)
    assert () == without_model(models, "m")


def reported(**fields):
    model = ReportedModel(name="m", phase="confirmed", **fields)
    return Reported(device="d", generation=2, models=(model,))


def shadow(phase, digest=B, reason=""):
    release = Release(digest=digest, version="1", sequence=1)
    return ReportedShadow(phase=phase, target=digest, active=release, reason=reason)


@pytest.mark.parametrize(
    ("mode", "digest", "state", "verdict", "phase"),
    [
        (Mode.OFFER, B, {"offered": Offered(digest=B, version="1")}, "done", "offered"),
        (Mode.OFFER, B, {"offered": Offered(digest=A, version="1")}, "pending", "waiting"),
        (Mode.OFFER, None, {}, "done", "removed"),
        (Mode.OFFER, None, {"offered": Offered(digest=A, version="1")}, "pending", "waiting"),
        (Mode.SHADOW, B, {"shadow": shadow("shadowing")}, "done", "shadowing"),
        (Mode.SHADOW, B, {"shadow": shadow("testing")}, "pending", "testing"),
        (Mode.SHADOW, B, {"shadow": shadow("shadowing", A)}, "pending", "waiting"),
        (Mode.SHADOW, B, {"shadow": shadow("rejected")}, "refused", "rejected"),
        (Mode.SHADOW, B, {}, "pending", "waiting"),
        (
            Mode.SHADOW,
            B,
            {"active": Release(digest=B, version="1", sequence=1)},
            "refused",
            "refused",
        ),
        (Mode.SHADOW, None, {}, "done", "removed"),
    ],
)
def test_how_far_a_device_is(mode, digest, state, verdict, phase):
    """Offered is the goal of an offer, seeing the inputs that of a challenger."""
    goal = Goal(device="d", model="m", digest=digest, generation=2, mode=mode)
    progress = judge(goal, reported(**state))
    assert (Verdict(verdict), phase) == (progress.verdict, progress.phase)


def test_watch_shows_holds_offers_and_challengers():
    """All of it in the phase column, for people; in fields of its own for scripts."""
    model = replace(
        reported(
            active=Release(digest=A, version="1.0.0", sequence=1),
            held=True,
            offered=Offered(digest=B, version="1.2.0"),
            shadow=replace(shadow("shadowing"), figures={"disagreement": 0.0125}),
        ).models[0]
    )
    view = FleetView("p")
    report = render_reported(Reported(device="d", generation=2, models=(model,)))
    view.take("p/d/out/reported", report)
    (row,) = view.rows()
    assert ("1.2.0", "1", "shadowing", 0.0125) == (
        row.offered,
        row.shadow,
        row.shadow_phase,
        row.shadow_disagreement,
    )
    expected = "confirmed, held, offered 1.2.0, shadow 1 (1.25% disagree)"
    assert expected == cells(row, 0.0)[5]
    gone = replace(model, shadow=replace(shadow("rejected", reason="shadow_failed"), active=None))
    report = render_reported(Reported(device="d", generation=3, models=(gone,)))
    view.take("p/d/out/reported", report)
    assert cells(view.rows()[0], 0.0)[5].endswith("shadow (shadow_failed)")
