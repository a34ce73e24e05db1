"""Kill -9 at every file operation and every journal statement of an install."""

import functools
import signal

import pytest
from support.kill_points import KillPoints
from support.small_device import PROBATION_S

from edgepack.agent.install.blobs import BlobStore

pytestmark = pytest.mark.timeout(600)
_AFTER = 4  # operations after the last mark that are tried as well


def kills(device, start, version, *, watch=KillPoints.watch, first=0.0, begin="", end=""):
    """Kill the install of a version at every operation, start again; what was seen, and where.

    Args:
        device: The device.
        start: The state folder that it starts with.
        version: What it is told to install.
        watch: Makes the agent count, and perhaps worse.
        first: Share of the operations after which the kills begin.
        begin: What the device passes before the first kill, see `SmallDevice.passed`.
        end: What it passes shortly before the last; what lies outside another test looks at.
    """
    points = KillPoints(device.copy(start, "killed"))

    def counted():
        marks = {begin: 1, end: 2}
        device.passed = lambda what: points.mark(marks[what]) if what in marks else None
        watch(points)

    assert 0 == device.install(points.state, version, before=counted)
    count, _ = points.counts
    assert count > 20
    from_number = points.marked(1) if begin else int(first * count)
    to_number = points.marked(2) + _AFTER if end else count
    assert 0 <= from_number < to_number <= count
    for number in range(from_number, to_number):
        points = KillPoints(device.copy(start, "killed"))
        before = functools.partial(watch, points, agent_stop=number)
        code = device.install(points.state, version, before=before)
        if code == 0 and number > 0.8 * count:
            continue  # it had a few operations less this time: signing goes on in the background
        yield number, code, device.restart(points.state, version)


def wrong_of(found, good, new):
    """Where no good version answered after the restart, or the install did not complete."""
    for number, code, seen in found:
        if code != -signal.SIGKILL:
            yield number, f"ended with {code}"
        if seen.first not in good or seen.log:
            yield number, "does not answer after the restart", seen
        if (seen.last, seen.phase) != (new, "confirmed"):
            yield number, "does not complete", seen


def test_killed_anywhere_in_an_upgrade(device, first):
    """A good version answers as soon as the device starts again, and the install completes."""
    found = kills(device, first, "1.1.0")
    assert [] == list(wrong_of(found, ("1.0.0", "1.1.0"), "1.1.0"))


def test_killed_anywhere_in_the_first_install(device):
    """Nothing or the version answers, and the install completes."""
    found = kills(device, None, "1.0.0")
    assert [] == list(wrong_of(found, ("", "1.0.0"), "1.0.0"))


def test_killed_anywhere_on_the_way_back(device, second):
    """Going back to what is on disk and was replaced, without a source."""
    found = kills(device, second, "back")
    assert [] == list(wrong_of(found, ("1.0.0", "1.1.0"), "1.0.0"))


def test_killed_anywhere_while_a_model_is_removed(device, second):
    """It answers or is gone, and in the end it is gone."""
    found = kills(device, second, "none")
    wrong = [(number, seen) for number, _, seen in found if seen.last or seen.log]
    assert [] == wrong


def test_killed_anywhere_while_an_offer_is_taken(device, first):
    """The button counts or it does not; pressed again, the version is installed."""
    found = kills(device, first, "offer", begin="decide", end="verifying")
    assert [] == list(wrong_of(found, ("1.0.0", "1.1.0"), "1.1.0"))


def test_killed_anywhere_while_a_person_goes_back(device, second):
    """One of the two answers, and the way back is gone to its end."""
    found = list(kills(device, second, "undo", begin="decide"))
    assert [] == list(wrong_of(found, ("1.0.0", "1.1.0"), "1.0.0"))
    assert {"1.0.0", "1.1.0"} == {seen.first for _, _, seen in found}


def test_killed_anywhere_while_a_challenger_is_cast(device, first):
    """The model answers all the time, and the challenger stands beside it in the end."""
    found = list(kills(device, first, "shadow", begin="testing"))
    assert found
    for number, code, seen in found:
        assert (-signal.SIGKILL, "1.0.0", "1.0.0", "1.0.0", "confirmed", "") == (
            code,
            seen.first,
            seen.last,
            seen.confirmed,
            seen.phase,
            seen.log,
        ), number


@pytest.fixture
def on_probation(device, first):
    """A state folder whose device was killed when 1.1.0 was on probation."""
    device.probation_s, device.die_at = 3600, "probation"
    state = device.copy(first, "probation")
    assert -signal.SIGKILL == device.install(state, "1.1.0", before=lambda: None)
    device.die_at = ""
    yield state
    device.probation_s = PROBATION_S


def test_killed_again_while_it_starts_after_a_kill_on_probation(device, on_probation):
    """Whatever the second kill hit: a good version answers, and one of the two is settled on."""
    device.probation_s = PROBATION_S
    wrong = []
    for number, code, seen in kills(device, on_probation, "1.1.0"):
        confirmed = ("1.1.0", "1.1.0", "confirmed") == (seen.first, seen.last, seen.phase)
        back = ("1.0.0", "1.0.0", "rolled_back") == (seen.first, seen.last, seen.phase)
        if code != -signal.SIGKILL or not (confirmed or back):
            wrong.append((number, code, seen))
    assert [] == wrong


def test_a_child_killed_anywhere(device, first, monkeypatch, impatient):
    """The agent goes on, tries again, and completes; only what kills its self-test is refused."""

    def install(**stops):
        points = KillPoints(device.copy(first, "child"))
        monkeypatch.setattr(device, "in_child", points.child_started)
        before = functools.partial(points.watch, together=False, **stops)
        code = device.install(points.state, "1.1.0", before=before)
        return points, code

    points, code = install()
    _, count = points.counts
    assert (0, True) == (code, count >= 3)
    ends = []
    for number in range(count):
        points, code = install(child_stop=number)
        seen = device.restart(points.state, None)
        ends.append((code, seen.first, seen.phase, seen.reason))
    complete = (0, "1.1.0", "confirmed", "")
    refused = (0, "1.0.0", "rejected", "self_test_crashed")
    assert {complete, refused} == set(ends)
    assert 1 == ends.count(refused)


def test_a_kill_that_loses_the_model_is_noticed(device, first):
    """The test itself is tested: an agent that deletes too early does not pass."""

    def careless(self, staged_layout, digests):
        for path in self.folder.iterdir():
            path.unlink()
        adopt(self, staged_layout, digests)

    def sabotaged(points, **stops):
        BlobStore.adopt = careless
        points.watch(**stops)

    adopt = BlobStore.adopt
    found = kills(device, first, "1.1.0", watch=sabotaged, first=0.5)
    assert next(wrong_of(found, ("1.0.0", "1.1.0"), "1.1.0"), None) is not None
