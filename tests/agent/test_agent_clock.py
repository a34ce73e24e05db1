"""A clock that may be wrong: what is believed, what is enforced, and what is said."""

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.device_here import Device, desired, signed, wish
from support.repository import REPOSITORY
from support.roots import Authority
from support.tiny_bundle import write_tiny_bundle

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
from edgepack.trust import DEPLOY, RELEASE, keygen
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


@pytest.mark.parametrize(
    ("wall", "word"),
    [
        (lambda: 0.0, "behind"),  # no battery
        (lambda: time.time() + 20 * YEAR_S, "ahead"),
        (lambda: time.time() * (int(time.monotonic() * 50) % 2), "behind"),  # back and forth
    ],
)
def test_a_device_with_a_wrong_clock_installs_and_says_what_it_could_not_check(
    tmp_path, wall, word
):
    """The whole agent: confirmed, with a notice, and so in every signed event."""
    authority = Authority.of(keygen(tmp_path / "keys"))
    model = wish(write_tiny_bundle(tmp_path, key=authority.keys[RELEASE]))

    async def main():
        async with Device(tmp_path / "device", authority.versions[0], wall=wall) as device:
            await device.confirms(model, authority)
            told = [event for event in device.events if event.clock == word]
            assert told
            assert {"expiry"} == {event.unchecked for event in told}
            assert {event.clock for event in device.events} <= {word, "plausible"}
            if word == "ahead":
                assert "10 years after" in device.notices["clock"]
                assert device.notices["unchecked"].startswith("expiry: the clock says")

    asyncio.run(main())


def test_a_plausible_clock_ends_what_has_expired(tmp_path):
    """The same device, its clock two months ahead: nothing is started, and it says why."""
    authority = Authority.of(keygen(tmp_path / "keys"))
    model = wish(write_tiny_bundle(tmp_path, key=authority.keys[RELEASE]))

    async def main():
        later = Device(
            tmp_path / "device", authority.versions[0], wall=lambda: time.time() + 5_000_000
        )
        async with later as device:
            device.deliver(signed(desired(model), authority.keys[DEPLOY]))
            await device.refuses("expired")
            assert ({}, None) == (device.notices, device.slot)

    asyncio.run(main())


def test_durations_never_use_the_wall_clock():
    """The wall clock is read where a moment is written down, and by the clock's own module."""
    allowed = {
        "doctor/examine.py",  # the default of a parameter
        "install/apply.py",  # the default of a parameter
        "install/chain.py",
        "install/clock.py",
        "install/journal.py",
        "install/slots.py",  # failures are moments that outlive a restart
        "report/outbox.py",  # the default of a parameter
        "report/publisher.py",
        "serve/mqtt.py",
        "serve/policy.py",
    }
    agent = REPOSITORY / "device_agent/edgepack/agent"
    found = {
        str(path.relative_to(agent))
        for path in agent.rglob("*.py")
        if "time.time" in path.read_text() or "datetime.now" in path.read_text()
    }
    assert found <= allowed
