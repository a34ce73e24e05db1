"""What is done about a desired state."""

from dataclasses import replace

from edgepack.agent.install.reconcile import BreakLoop, Install, Refuse, Remove, reconcile
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.transitions import Phase
from edgepack.agent.install.tries import Failures
from edgepack.wire.desired import Audience, Desired, DesiredModel, Mode
from edgepack.wire.messages import Release

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
NOW_S = 1_000


def desired(*models: DesiredModel, generation: int = 5) -> Desired:
    audience = Audience(prefix="edgepack/v1", device="d1")
    return Desired(
        audience=audience, generation=generation, issued_s=900, expires_s=2_000, models=models
    )


def wish(digest: str = B, name: str = "m") -> DesiredModel:
    return DesiredModel(name=name, version="1.0.0", digest=digest, sources=("mqtt:",))


def slot(digest: str = A, **changes: object) -> Slot:
    installed = Installed(release=Release(digest=digest, version="1", sequence=1), variant="v")
    made = Slot(
        name="m",
        phase=Phase.CONFIRMED,
        target=digest,
        active=installed,
        confirmed=installed,
        managed=True,
    )
    return replace(made, **changes)


def test_a_new_model_is_installed():
    """What is wished and absent is installed."""
    assert (Install(wish()),) == reconcile(desired(wish()), {}, now_s=NOW_S)


def test_what_is_active_already_is_left_alone():
    """Reconciling twice does nothing the second time."""
    assert () == reconcile(desired(wish(A)), {"m": slot(A)}, now_s=NOW_S)


def test_another_digest_is_installed():
    """The digest is the identity, not the version."""
    assert (Install(wish(B)),) == reconcile(desired(wish(B)), {"m": slot(A)}, now_s=NOW_S)


def test_what_failed_is_not_tried_again_under_the_same_generation():
    """A device does not loop over a version that it refused."""
    failed = slot(A, failed=(B,), failed_generation=5)
    assert () == reconcile(desired(wish(B)), {"m": failed}, now_s=NOW_S)


def test_what_failed_is_tried_again_under_a_new_generation():
    """An operator who deploys again means it."""
    failed = slot(A, failed=(B,), failed_generation=4)
    assert (Install(wish(B)),) == reconcile(desired(wish(B)), {"m": failed}, now_s=NOW_S)


def test_a_held_model_is_left_alone_until_the_desired_state_changes():
    """A local decision stands against the desired state that it was made under."""
    held = slot(A, held_generation=5)
    assert () == reconcile(desired(wish(B)), {"m": held}, now_s=NOW_S)
    newer = desired(wish(B), generation=6)
    assert (Install(wish(B)),) == reconcile(newer, {"m": held}, now_s=NOW_S)


def test_a_model_that_is_no_longer_listed_is_removed():
    """Leaving a model out is how it is removed."""
    assert (Remove("m"),) == reconcile(desired(), {"m": slot()}, now_s=NOW_S)


def test_a_model_that_was_installed_by_hand_is_not_removed():
    """The desired state removes only what it brought."""
    assert () == reconcile(desired(), {"m": slot(managed=False)}, now_s=NOW_S)


def test_an_expired_state_starts_no_install_and_says_so():
    """Expiry bars starting an install."""
    (action,) = reconcile(desired(wish(B)), {"m": slot(A)}, now_s=3_000)
    assert Refuse("m", "expired", "desired state expired 1000 s ago") == action


def test_an_expired_state_still_removes_and_leaves_running_models_alone():
    """Expiry bars nothing else."""
    assert () == reconcile(desired(wish(A)), {"m": slot(A)}, now_s=3_000)
    assert (Remove("m"),) == reconcile(desired(), {"m": slot()}, now_s=3_000)


def test_an_offer_waits_for_a_person():
    """An offered version is not installed by itself."""
    offered = replace(wish(B), mode=Mode.OFFER)
    assert () == reconcile(desired(offered), {"m": slot(A)}, now_s=NOW_S)


def test_a_challenger_without_a_model_says_that_it_waits():
    """Not when a version is being installed beside which it will stand."""
    shadow = replace(wish(B), mode=Mode.SHADOW)
    (action,) = reconcile(desired(shadow), {}, now_s=NOW_S)
    assert ("m", "no_champion") == (action.name, action.reason)
    assert (Install(wish(A)),) == reconcile(desired(wish(A), shadow), {}, now_s=NOW_S)


def test_a_challenger_that_answers_already_is_none():
    """It would be compared with itself: said, not waited for in silence."""
    shadow = replace(wish(A), mode=Mode.SHADOW)
    (action,) = reconcile(desired(wish(A), shadow), {"m": slot(A)}, now_s=NOW_S)
    assert ("m", "is_champion") == (action.name, action.reason)


def test_a_challenger_is_cast_beside_a_proven_model_only():
    """What is on probation is measured; nothing else runs beside it."""
    shadow = replace(wish(B), mode=Mode.SHADOW)
    state = desired(wish(A), shadow)
    assert (Install(shadow),) == reconcile(state, {"m": slot(A)}, now_s=NOW_S)
    unproven = slot(A, confirmed=None, phase=Phase.PROBATION)
    assert () == reconcile(state, {"m": unproven}, now_s=NOW_S)


def test_a_version_that_failed_too_often_is_left_alone_whatever_asks_for_it():
    """The loop breaker looks at all wishes, within its window."""
    failures = (Failures(digest=B, at_s=(NOW_S - 30, NOW_S - 20, NOW_S - 10)),)
    often = slot(A, failures=failures)
    (action,) = reconcile(desired(wish(B)), {"m": often}, now_s=NOW_S)
    assert (BreakLoop, "m") == (type(action), action.key)
    (again,) = reconcile(desired(wish(B)), {"m": often}, now_s=None)
    assert BreakLoop is type(again)  # without a clock, no failure is long ago
    late = NOW_S + 86_400
    state = replace(desired(wish(B)), expires_s=int(late) + 1)
    assert (Install(wish(B)),) == reconcile(state, {"m": often}, now_s=late)
