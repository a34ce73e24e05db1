"""A clock that may be wrong: what is believed, what is enforced, and what is said."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.repository import REPOSITORY

from edgepack.agent.install.clock import (
    MAX_AHEAD_S,
    RELEASED_S,
    SLACK_S,
    Clock,
    DeviceClock,
    Evidence,
    agrees,
    judge,
)
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.reconcile import Install, Refuse, reconcile
from edgepack.wire.desired import Audience, Desired, DesiredModel

YEAR_S = 365 * 24 * 3600
NOW_S = RELEASED_S + 2 * YEAR_S
DESIRED = Desired(
    audience=Audience(prefix="p", device="d"),
    generation=1,
    issued_s=NOW_S,
    expires_s=NOW_S + 30 * 24 * 3600,
    models=(DesiredModel(name="m", version="1.0.0", digest="sha256:" + "a" * 64),),
)


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (0, Clock.BEHIND),  # 1970
        (RELEASED_S, Clock.BEHIND),  # before what was signed
        (NOW_S - SLACK_S, Clock.PLAUSIBLE),
        (NOW_S + 9 * YEAR_S, Clock.PLAUSIBLE),
        (NOW_S + 20 * YEAR_S, Clock.AHEAD),
        (-(2**40), Clock.BEHIND),
        (2**40, Clock.AHEAD),
    ],
)
def test_what_a_clock_is_worth(now_s, expected):
    """Earlier than what is past, or later than a device could have waited, is no time."""
    assert expected is judge(now_s, Evidence(issued_s=NOW_S)).clock


@given(st.integers(-(2**62), 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
def test_every_clock_gets_a_verdict_and_its_line(now_s, issued_s, seen_s):
    """Whatever the numbers: a verdict, and a complaint exactly when it is not believed."""
    verdict = judge(now_s, Evidence(issued_s=issued_s, seen_s=seen_s))
    assert (verdict.clock is Clock.PLAUSIBLE) == (verdict.complaint == "")
    assert (verdict.clock is Clock.PLAUSIBLE) == (verdict.expiry_now_s is not None)
    assert "\n" not in verdict.complaint


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (NOW_S + 24 * 3600, Install),
        (DESIRED.expires_s + 1, Refuse),  # a plausible clock enforces expiry
        (0, Install),  # 1970: it installs and says so
        (NOW_S + 20 * YEAR_S, Install),  # far ahead: it is not bricked
    ],
)
def test_what_a_clock_decides(now_s, expected):
    """Only a clock that can be right bars an install."""
    now = judge(now_s, Evidence(issued_s=DESIRED.issued_s)).expiry_now_s
    (action,) = reconcile(DESIRED, {}, now_s=now)
    assert isinstance(action, expected)


def clock_at(tmp_path, *times):
    """A clock that shows one time after the other, the last one for ever."""
    left = list(times)
    journal = Journal(tmp_path / "agent.db")
    return DeviceClock(journal, lambda: left.pop(0) if len(left) > 1 else left[0]), journal


def test_what_was_seen_outlives_a_restart(tmp_path):
    """A device that falls back to 1970 after a power cut knows better."""
    clock, journal = clock_at(tmp_path, NOW_S)
    clock.remember()
    journal.close()
    clock, journal = clock_at(tmp_path, 0)
    assert (Clock.BEHIND, NOW_S) == (clock.verdict().clock, clock.verdict().earliest_s)
    clock.remember()
    assert NOW_S == clock.verdict().earliest_s
    journal.close()


def test_a_time_that_cannot_be_is_not_remembered(tmp_path):
    """One jump to the year 2100 does not make all later times look wrong."""
    clock, journal = clock_at(tmp_path, NOW_S + 60 * YEAR_S, NOW_S + 60 * YEAR_S, NOW_S)
    clock.remember()
    assert RELEASED_S == clock.verdict().earliest_s
    assert Clock.PLAUSIBLE is clock.verdict().clock
    journal.close()


def test_a_jump_forward_that_was_believed_is_mended_by_the_next_desired_state(tmp_path):
    """The clock ran five years ahead and was set right: one deployment later it is believed."""
    clock, journal = clock_at(tmp_path, NOW_S + 5 * YEAR_S, NOW_S + 5 * YEAR_S, NOW_S)
    clock.remember()
    assert Clock.PLAUSIBLE is clock.verdict().clock
    assert Clock.BEHIND is clock.verdict().clock
    journal.set_metas(clock.accepting(DESIRED))
    clock.reread()
    assert Clock.PLAUSIBLE is clock.verdict().clock
    journal.close()


def test_a_far_future_issue_time_is_forgotten_with_the_key_that_signed_it(tmp_path):
    """A thief of the deploy key said that it is 2100: until the rotation expiry is unchecked."""
    clock, journal = clock_at(tmp_path, NOW_S)
    stolen = replace(DESIRED, issued_s=NOW_S + 70 * YEAR_S, expires_s=NOW_S + 71 * YEAR_S)
    journal.set_metas(clock.accepting(stolen))
    clock.reread()
    assert (Clock.BEHIND, None) == (clock.verdict().clock, clock.expiry_now_s())
    journal.set_metas(clock.forgetting())
    clock.reread()
    assert Clock.PLAUSIBLE is clock.verdict().clock
    journal.close()


def test_a_clock_agrees_between_issue_and_expiry():
    """With some slack for an operator whose clock is ahead."""
    times = (DESIRED.issued_s - SLACK_S - 1, DESIRED.issued_s - SLACK_S, DESIRED.expires_s + 1)
    assert [False, True, False] == [agrees(now_s, DESIRED) for now_s in times]


def test_the_release_date_is_past():
    """A constant that lies in the future would make every clock look wrong."""
    assert RELEASED_S < time.time() < RELEASED_S + MAX_AHEAD_S


def test_durations_never_use_the_wall_clock():
    """The wall clock is read where a moment is written down, and by the clock's own module."""
    allowed = {
        "install/apply.py",  # the default of a parameter
        "install/chain.py",
        "install/clock.py",
        "install/journal.py",
        "install/slots.py",  # failures are moments that outlive a restart
        "report/publisher.py",
        "serve/mqtt.py",
    }
    agent = REPOSITORY / "device_agent/edgepack/agent"
    found = {
        str(path.relative_to(agent))
        for path in agent.rglob("*.py")
        if "time.time" in path.read_text() or "datetime.now" in path.read_text()
    }
    assert found <= allowed
