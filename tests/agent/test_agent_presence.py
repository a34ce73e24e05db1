"""Two devices with one id, and a device that was installed anew: said, and no silent fight."""

import shutil
import subprocess
import sys
import time

import pytest
from support.agent_process import AgentProcess, running, wait_until

from edgepack.agent.report.presence import NOTHING, Presence, Seen
from edgepack.wire.messages import Info

OWN = Info(device="d1", agent_version="0", instance="aa" * 8, run="11")
OTHER = Info(device="d1", agent_version="0", instance="bb" * 8, run="22")
COPY = Info(device="d1", agent_version="0", instance="aa" * 8, run="33")
OLDER = Info(device="d1", agent_version="0", instance="aa" * 8)


def presence(*, greeted=True):
    return Presence("aa" * 8, "11", greeted=greeted)


@pytest.mark.parametrize(
    ("info", "retained", "greeted"),
    [(OWN, True, True), (OWN, False, True), (COPY, True, True), (OLDER, False, True)],
)
def test_what_we_said_ourselves_is_nothing(info, retained, greeted):
    """Our own words, those of an earlier start, and those of an agent that names no start."""
    assert NOTHING == presence(greeted=greeted).see(info, retained=retained, now_s=0)


def test_who_was_here_before_us_is_replaced():
    """A new installation finds the retained words of another one: floors are forgotten."""
    assert Seen(replaces="bb" * 8) == presence(greeted=False).see(OTHER, retained=True, now_s=0)


def test_who_was_here_since_is_in_conflict():
    """An installation that has said hello before is not new."""
    seen = presence().see(OTHER, retained=True, now_s=0)
    assert ("", "installation bbbbbbbb has used this device id since this one last did") == (
        seen.replaces,
        seen.conflict,
    )


def test_who_is_here_now_is_answered_but_not_for_ever():
    """Two that hear of each other do not talk each other to death."""
    made = presence()
    answers = [
        made.see(one, retained=False, now_s=s).answer
        for one, s in ((OTHER, 0), (OTHER, 1), (COPY, 2), (OTHER, 59), (OTHER, 60), (OTHER, 60.5))
    ]
    assert [True, True, True, False, True, False] == answers


@pytest.mark.parametrize("other", [OTHER, COPY])
def test_who_is_not_heard_after_our_own_word_is_no_conflict(other):
    """A broker may bring late what an earlier start said; whoever is there answers."""
    made = presence()
    assert 2 * [Seen(answer=True)] == [made.see(other, retained=False, now_s=s) for s in (0, 1)]
    made.see(OWN, retained=False, now_s=2)
    assert "at the same time" in made.see(other, retained=False, now_s=3).conflict


def test_who_was_read_and_is_heard_is_in_conflict():
    """What is retained names one that may be gone; a word of it proves that it is not."""
    made = presence()
    made.see(OTHER, retained=True, now_s=0)
    made.see(OWN, retained=False, now_s=0)
    assert "at the same time" in made.see(OTHER, retained=False, now_s=1).conflict


@pytest.mark.parametrize("retained", [True, False])
def test_who_answers_no_more_is_gone(retained):
    """After two questions; what was met of it is forgotten."""
    made = presence()
    for _ in range(2):
        made.see(OTHER, retained=retained, now_s=0)
        made.probed()
        assert not made.is_alone_again
        made.see(OTHER, retained=False, now_s=0)  # it answers
    made.probed()
    assert not made.is_alone_again
    made.probed()
    assert made.is_alone_again
    assert not made.is_alone_again
    assert "" == made.see(OTHER, retained=False, now_s=9).conflict


def test_two_copies_hear_of_each_other_and_stop():
    """Each word is carried to the other one: both are sure in the end, and then it is quiet."""
    both = [(info, Presence(info.instance, info.run, greeted=True), []) for info in (OWN, COPY)]
    said = [COPY]
    for _ in range(100):
        if not said:
            break
        info = said.pop(0)
        for mine, made, conflicts in both:
            seen = made.see(info, retained=False, now_s=0)
            conflicts.append(seen.conflict)
            if seen.answer:
                said.append(mine)
    assert not said
    assert all(any(conflicts) for _, _, conflicts in both)


def notices(operator):
    """Every notice that was ever reported, by kind."""
    found = {}
    for document in operator.documents(operator.topics.reported):
        for kind, detail in document.get("notices", {}).items():
            found.setdefault(kind, set()).add(detail)
    return found


def now(operator):
    """Who is said to use the id at the same time."""
    return {d for d in notices(operator).get("conflict", ()) if "at the same time" in d}


def test_a_device_that_was_installed_anew_says_so(operator, alone, keys, tmp_path):
    """A new state folder under an old id: in info for good, in reported, and as an event."""
    first = AgentProcess(tmp_path / "device", keys, alone.port)
    with running(first):
        wait_until(lambda: operator.documents(operator.topics.info), "info")
        first.stop()
    old = operator.documents(operator.topics.info)[-1]["instance"]
    shutil.rmtree(tmp_path / "device/state")
    second = AgentProcess(tmp_path / "device", keys, alone.port)
    with running(second):
        wait_until(lambda: "reinstalled" in notices(operator), "it is said")
        infos = operator.documents(operator.topics.info)
        wait_until(lambda: operator.documents(operator.topics.info)[-1]["replaces"] == old, "info")
        assert "" == infos[0]["replaces"]

        def events():
            return operator.documents(operator.topics.event("error"))

        wait_until(lambda: "reinstalled" in [event["reason"] for event in events()], "the event")
        second.stop()
        operator.messages.clear()
        second.start()
        wait_until(lambda: operator.documents(operator.topics.info), "info")
        assert old == operator.documents(operator.topics.info)[-1]["replaces"]
        assert "conflict" not in notices(operator)


def test_two_devices_with_one_id_say_so_both(operator, alone, keys, tmp_path):
    """Each learns of the other, whichever came first."""
    one = AgentProcess(tmp_path / "one", keys, alone.port)
    two = AgentProcess(tmp_path / "two", keys, alone.port)
    with running(one):
        wait_until(lambda: operator.documents(operator.topics.info), "info")
        with running(two):
            wait_until(lambda: "conflict" in one.text() and "conflict" in two.text(), "both say so")
            wait_until(lambda: len(now(operator)) == 2, "both report it")


_CURIOUS = """
import sys
from edgepack.agent.report import introduction
introduction._PROBE_INTERVAL_S = 1.0
from edgepack.agent.main import main
sys.exit(main())
"""


class CuriousAgent(AgentProcess):
    """`edgepack-agent run` that soon asks again whether another one is still here."""

    def start(self):
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", _CURIOUS, "run", "-v", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        return self


def test_the_notice_goes_with_the_other_one(operator, alone, keys, tmp_path):
    """And the one that stays is online, though the other one's last will says otherwise."""
    one = CuriousAgent(tmp_path / "one", keys, alone.port)
    two = AgentProcess(tmp_path / "two", keys, alone.port)
    with running(one):
        wait_until(lambda: operator.documents(operator.topics.info), "info")
        with running(two):
            wait_until(lambda: "at the same time" in one.text(), "it is said")

            def warned():
                return "conflict" in operator.reported().get("notices", {})

            wait_until(warned, "it is reported")
            two.kill()
        wait_until(lambda: not warned(), "the notice goes", 120)

        def statuses():
            return [p for topic, p, _ in list(operator.messages) if topic == operator.topics.status]

        wait_until(lambda: b"offline" in statuses(), "the will")
        wait_until(lambda: b"online" == statuses()[-1], "it is online")


def test_a_copied_state_folder_is_no_silent_fight(operator, alone, keys, tmp_path):
    """Two agents with one client id would throw each other out without end."""
    one = AgentProcess(tmp_path / "one", keys, alone.port)
    two = AgentProcess(tmp_path / "two", keys, alone.port)
    with running(one):
        wait_until(lambda: operator.documents(operator.topics.info), "info")
        one.stop()
        shutil.copytree(tmp_path / "one/state", tmp_path / "two/state")
        one.start()
        wait_until(lambda: one.text().count("broker.connected") == 2, "the first is back")
        with running(two):
            wait_until(
                lambda: "broker.crowded" in one.text() + two.text(), "one takes an id of its own"
            )
            wait_until(lambda: "at the same time" in one.text(), "the first says so")
            wait_until(lambda: "at the same time" in two.text(), "the second says so")
            lost = [agent.text().count("broker.lost") for agent in (one, two)]
            time.sleep(3)
            assert lost == [agent.text().count("broker.lost") for agent in (one, two)]
    assert {"a copy of this installation uses this device id at the same time"} == now(operator)
