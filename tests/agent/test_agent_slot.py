"""The states of a slot, and what a restart makes of each."""

import itertools
from dataclasses import replace

import pytest

from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.transitions import IN_PROGRESS, TRANSITIONS, Phase, Step, after
from edgepack.trust.decode import decode, encode
from edgepack.trust.strict_json import render
from edgepack.wire.messages import Release

OLD = Installed(
    release=Release(digest="sha256:" + "a" * 64, version="1.0.0", sequence=1), variant="v"
)
NEW = Installed(
    release=Release(digest="sha256:" + "b" * 64, version="1.1.0", sequence=2), variant="v"
)


def confirmed(installed: Installed = OLD) -> Slot:
    """A slot whose active version is proven."""
    return Slot(
        name="m",
        phase=Phase.CONFIRMED,
        target=installed.digest,
        active=installed,
        confirmed=installed,
    )


def advanced(slot: Slot, phase: Phase) -> Slot:
    """The slot, `NEW` being installed, up to `phase`."""
    slot = slot.start(NEW.digest)
    while slot.phase is not phase:
        slot = slot.switch(NEW) if slot.phase is Phase.SWITCHING else slot.advance()
    return slot


def test_the_table_is_the_one_of_the_design():
    """A first install goes through every phase in the documented order."""
    seen = [Phase.IDLE]
    step = Step.START
    while seen[-1] is not Phase.CONFIRMED:
        seen.append(after(seen[-1], step))
        step = Step.DONE
    expected = "idle fetching verifying staging testing switching probation confirmed"
    assert expected.split() == [phase.value for phase in seen]


def test_every_phase_of_an_install_can_fail():
    """No phase after idle lacks its failure edge."""
    for phase in {*IN_PROGRESS, Phase.PROBATION, Phase.CONFIRMED}:
        assert TRANSITIONS[phase][Step.FAILED] in (Phase.REJECTED, Phase.ROLLED_BACK)


def test_an_edge_that_is_not_in_the_table_is_a_defect():
    """Nothing can be confirmed that was never tried."""
    with pytest.raises(ValueError, match="no edge from idle on done"):
        after(Phase.IDLE, Step.DONE)


def test_the_last_confirmed_version_stays_on_disk_whatever_comes_after_it():
    """Also when it is neither what answers nor what answered before."""
    third = replace(NEW, release=Release(digest="sha256:" + "c" * 64, version="2", sequence=3))
    slot = advanced(confirmed(), Phase.PROBATION).start(third.digest)
    while slot.phase is not Phase.SWITCHING:
        slot = slot.advance()
    slot = slot.switch(third)
    assert (third, NEW, OLD) == (slot.active, slot.previous, slot.confirmed)
    assert (third, NEW, OLD) == slot.kept()
    assert OLD == slot.roll_back("why", "in words", 1).active


@pytest.mark.parametrize("phase", sorted(IN_PROGRESS))
def test_a_rejected_install_leaves_the_active_version(phase):
    """Before the switch, a failure changes nothing that answers."""
    slot = advanced(confirmed(), phase).reject("why", "in words", generation=7)
    assert (Phase.REJECTED, OLD, OLD) == (slot.phase, slot.active, slot.confirmed)
    assert ((NEW.digest,), 7) == (slot.failed, slot.failed_generation)


def test_a_switched_version_is_not_confirmed_yet():
    """After the switch the old version is the previous one and still the confirmed one."""
    slot = advanced(confirmed(), Phase.PROBATION)
    assert (NEW, OLD, OLD) == (slot.active, slot.previous, slot.confirmed)


def test_a_failed_probation_brings_the_confirmed_version_back():
    """After a rollback the old version answers and the new one is remembered as failed."""
    slot = advanced(confirmed(), Phase.PROBATION).roll_back("errors", "", generation=3)
    assert (Phase.ROLLED_BACK, OLD, OLD) == (slot.phase, slot.active, slot.confirmed)
    assert (NEW.digest,) == slot.failed


def test_a_failed_first_install_leaves_nothing():
    """Without an earlier version a rollback ends with nothing active."""
    slot = advanced(Slot(name="m"), Phase.PROBATION).roll_back("errors", "", generation=3)
    assert (Phase.ROLLED_BACK, None) == (slot.phase, slot.active)


@pytest.mark.parametrize("phase", sorted(IN_PROGRESS))
def test_a_restart_in_the_middle_of_an_install_serves_what_was_active(phase):
    """An interrupted install is forgotten; reconcile starts it anew."""
    slot = advanced(confirmed(), phase).recover(unclean=True)
    assert (Phase.CONFIRMED, OLD, OLD.digest) == (slot.phase, slot.active, slot.target)


@pytest.mark.parametrize("phase", sorted(IN_PROGRESS))
def test_a_restart_in_the_middle_of_a_first_install_is_idle(phase):
    """With nothing active there is nothing to go back to."""
    slot = advanced(Slot(name="m"), phase).recover(unclean=True)
    assert (Phase.IDLE, None) == (slot.phase, slot.active)


def test_only_an_unclean_exit_on_probation_counts():
    """A tidy restart on probation is no evidence against the model."""
    slot = advanced(confirmed(), Phase.PROBATION)
    assert 0 == slot.recover(unclean=False).unclean_exits
    assert 1 == slot.recover(unclean=True).unclean_exits


@pytest.mark.parametrize("phase", sorted(IN_PROGRESS))
def test_an_unclean_exit_counts_while_a_later_version_is_tried(phase):
    """What answers on probation is judged, whatever the install of the next version does."""
    slot = advanced(replace(confirmed(), confirmed=None), phase).recover(unclean=True)
    assert (Phase.PROBATION, 1) == (slot.phase, slot.unclean_exits)


def test_an_unclean_exit_counts_after_a_later_version_was_rejected():
    """The phase tells of the rejected one; what answers is unproven all the same."""
    slot = advanced(replace(confirmed(), confirmed=None), Phase.TESTING).reject("why", "", 1)
    recovered = slot.recover(unclean=True)
    assert (Phase.REJECTED, 1) == (recovered.phase, recovered.unclean_exits)


def test_a_rollback_begins_to_count_anew():
    """The exits of the version that went are not held against the one that answers again."""
    slot = replace(advanced(confirmed(), Phase.PROBATION), unclean_exits=2)
    assert 0 == slot.roll_back("unclean_exits", "", generation=3).unclean_exits


def test_what_is_remembered_is_bounded():
    """Neither a long reason nor many failures outgrow the journal."""
    slot = confirmed()
    for number in range(100):
        slot = slot.start(f"sha256:{number:064}").reject("why", "x" * 100_000, generation=1)
    assert len(render(encode(slot))) < 4096
    assert f"sha256:{99:064}" in slot.failed


def test_failed_digests_are_forgotten_with_a_new_generation():
    """A version that failed under one desired state may be tried under the next."""
    slot = advanced(confirmed(), Phase.TESTING).reject("why", "", generation=1)
    again = slot.start("sha256:" + "c" * 64).reject("why", "", generation=2)
    assert ("sha256:" + "c" * 64,) == again.failed


def test_the_floor_only_rises():
    """Confirming an older version does not lower what was promised."""
    slot = advanced(confirmed(), Phase.PROBATION)
    raised = slot.confirm("", floor=9)
    again = raised.start(NEW.digest)
    for _ in range(5):
        again = again.advance()
    assert 9 == again.confirm("", floor=4).floor


def test_slots_survive_the_journal_format():
    """What is written to the database is read back equal."""
    for phase, unclean in itertools.product([Phase.TESTING, Phase.PROBATION], [True, False]):
        slot = advanced(confirmed(), phase).recover(unclean=unclean)
        assert slot == decode(Slot, encode(slot), what="slot", ignore_unknown=True)
