"""Reports that wait on disk."""

import json
import sqlite3

import pytest

from edgepack.agent.report.outbox import Outbox, Rank, with_member

DAY_S = 86_400.0
NOW_S = 1_800_000_000.0


class Clock:
    """A clock that a test sets; None is one that is not to be believed."""

    def __init__(self, now_s=NOW_S):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


def topics(outbox):
    return [report.topic for report in outbox.backlog(100)]


def on_disk(path):
    """Topics that somebody else sees in the database."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
        return [topic for (topic,) in other.execute("SELECT topic FROM reports ORDER BY rank, id")]


def fill(outbox, *names):
    """Put reports whose names say what they are: e, p or m."""
    ranks = {"e": Rank.EVENT, "p": Rank.PREDICTION, "m": Rank.METRIC}
    for name in names:
        outbox.put(name, b"{}", rank=ranks[name[0]])


def test_events_go_first_then_predictions_and_each_in_order(tmp_path):
    """What matters most is sent first."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    fill(outbox, "m1", "p1", "e1", "m2", "e2", "p2")
    assert ["e1", "e2", "p1", "p2", "m1", "m2"] == topics(outbox)


def test_a_full_box_drops_the_oldest_metrics_first_and_counts(tmp_path):
    """Events survive as long as there is anything else to drop."""
    outbox = Outbox(tmp_path / "o.db", max_rows=3)
    fill(outbox, "e1", "m1", "m2", "p1", "e2", "e3")
    outbox.flush()
    assert (["e1", "e2", "e3"], 3, 0) == (
        topics(outbox),
        outbox.dropped.reports,
        outbox.dropped.events,
    )
    fill(outbox, "e4")
    assert (["e2", "e3", "e4"], 4, 1) == (
        topics(outbox),
        outbox.dropped.reports,
        outbox.dropped.events,
    )


def test_the_box_is_bounded_by_what_reports_weigh(tmp_path):
    """Few large reports take no more room than many small ones."""
    outbox = Outbox(tmp_path / "o.db", max_rows=1000, max_bytes=10_000)
    for number in range(20):
        outbox.put(f"m{number:02}", b'{"x":"%s"}' % (b"x" * 900), rank=Rank.METRIC)
    outbox.flush()
    assert outbox.size_bytes <= 10_000
    assert [f"m{number:02}" for number in range(11, 20)] == topics(outbox)
    assert 11 == outbox.dropped.reports


def test_what_is_too_old_is_dropped(tmp_path):
    """A report that is older than the limit is worth nothing."""
    clock = Clock()
    outbox = Outbox(tmp_path / "o.db", max_rows=10, max_age_s=2 * DAY_S, now_s=clock)
    fill(outbox, "m1", "e1")
    clock.now_s += DAY_S
    fill(outbox, "m2", "e2")
    clock.now_s += 1.5 * DAY_S
    fill(outbox, "m3", "e3")
    assert ["e2", "e3", "m2", "m3"] == topics(outbox)
    assert (2, 1) == (outbox.dropped.reports, outbox.dropped.events)


def test_a_clock_that_is_not_believed_drops_nothing(tmp_path):
    """A device without a clock keeps what it made in 1970, and nothing made then looks old."""
    clock = Clock(None)
    outbox = Outbox(tmp_path / "o.db", max_rows=10, max_age_s=DAY_S, now_s=clock)
    fill(outbox, "e1")
    clock.now_s = NOW_S
    fill(outbox, "e2")
    clock.now_s = None
    fill(outbox, "e3")
    assert ["e1", "e2", "e3"] == topics(outbox)


def test_what_was_not_acknowledged_survives_a_restart(tmp_path):
    """Only `done` takes a report out, and the count of what was dropped stays."""
    outbox = Outbox(tmp_path / "o.db", max_rows=2)
    fill(outbox, "e0", "e1", "m1", "e2")
    outbox.done(outbox.backlog(1)[0])
    outbox.close()
    again = Outbox(tmp_path / "o.db", max_rows=10)
    assert (["e2"], 1) == (topics(again), len(again))
    assert (2, 1, 0) == (again.dropped.reports, again.dropped.events, again.dropped.told)
    again.drops_told()
    again.close()
    assert 2 == Outbox(tmp_path / "o.db", max_rows=10).dropped.told


def test_an_event_is_on_disk_at_once_and_metrics_are_written_together(tmp_path):
    """Metrics cost no write each; an event takes those that wait with it."""
    outbox = Outbox(tmp_path / "o.db", max_rows=1000)
    fill(outbox, "m1", "m2", "p1")
    assert [] == on_disk(tmp_path / "o.db")
    fill(outbox, "e1")
    assert ["e1", "p1", "m1", "m2"] == on_disk(tmp_path / "o.db")
    fill(outbox, "m3")
    outbox.flush()
    assert ["e1", "p1", "m1", "m2", "m3"] == on_disk(tmp_path / "o.db")


def test_what_the_broker_takes_in_time_is_never_written(tmp_path):
    """A device that is online does not wear out its flash."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    outbox.put("m1", b"{}", rank=Rank.METRIC, live=True)
    (report,) = outbox.live(())
    outbox.done(report)
    outbox.flush()
    assert (0, [], True) == (len(outbox), on_disk(tmp_path / "o.db"), outbox.is_settled)


def test_what_happens_now_goes_past_what_waited(tmp_path):
    """Live reports are apart from the backlog until the connection is lost."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    fill(outbox, "e1", "m1")
    outbox.put("m2", b"{}", rank=Rank.METRIC, live=True)
    outbox.put("e2", b"{}", rank=Rank.EVENT, live=True)
    assert ["e2", "m2"] == [report.topic for report in outbox.live(())]
    assert ["e1", "m1"] == topics(outbox)
    outbox.disconnected()
    assert [] == outbox.live(())
    assert ["e1", "e2", "m1", "m2"] == topics(outbox)


def test_what_is_under_way_is_not_given_twice(tmp_path):
    """In memory and on disk alike."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    fill(outbox, "m1", "m2")
    first = outbox.backlog(1)[0]
    assert ["m2"] == [report.topic for report in outbox.backlog(10, {first.number})]
    fill(outbox, "e1")
    assert ["e1", "m2"] == [report.topic for report in outbox.backlog(10, {first.number})]


def test_every_report_has_an_id_of_its_own(tmp_path):
    """Also over a restart, so that a consumer can drop what comes twice."""

    def ids():
        outbox = Outbox(tmp_path / "o.db", max_rows=100)
        fill(outbox, "e1", "m1", "e2")
        found = [json.loads(report.payload)["message_id"] for report in outbox.backlog(100)]
        outbox.close()
        return found

    first, both = ids(), ids()
    assert 6 == len(set(both))
    assert set(first) < set(both)


@pytest.mark.parametrize("payload", [b"{}", b'{"a":1}', b' {"a": 1} \n', b"{ }"])
def test_a_member_is_added_to_any_object(payload):
    """Whatever spaces it has."""
    assert {**json.loads(payload), "b": 2} == json.loads(with_member(payload, b'"b":2'))


def test_reports_of_an_earlier_version_of_the_box_are_kept(tmp_path):
    """An update of the agent loses no event."""
    with sqlite3.connect(tmp_path / "o.db") as old:
        old.execute(
            "CREATE TABLE waiting (id INTEGER PRIMARY KEY, rank INTEGER NOT NULL,"
            " topic TEXT NOT NULL, payload BLOB NOT NULL)"
        )
        old.execute("CREATE INDEX waiting_rank ON waiting (rank, id)")
        old.execute("INSERT INTO waiting VALUES (7, 1, 'm', X'7b7d'), (8, 0, 'e', X'7b7d')")
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    fill(outbox, "e9")
    assert (["e", "e9", "m"], [8, 9, 7]) == (
        topics(outbox),
        [report.number for report in outbox.backlog(10)],
    )


class FullDisk:
    """A database that takes nothing while it is full."""

    def __init__(self, database):
        self._database = database
        self.is_full = True

    def execute(self, statement, *parameters):
        if self.is_full and statement.startswith("INSERT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(statement, *parameters)

    def __getattr__(self, name):
        return getattr(self._database, name)


def test_a_full_disk_loses_no_event(tmp_path, caplog):
    """What it does not take waits in memory until it does; one line tells it."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    outbox._db = disk = FullDisk(outbox._db)
    fill(outbox, "e1", "m1", "e2")
    assert ["e1", "e2", "m1"] == topics(outbox)
    assert 1 == caplog.text.count("outbox.unwritable")
    disk.is_full = False
    fill(outbox, "e3")
    assert ["e1", "e2", "e3", "m1"] == on_disk(tmp_path / "o.db") == topics(outbox)


def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path):
    """Then metrics are dropped first here, too, and counted."""
    outbox = Outbox(tmp_path / "o.db", max_rows=3)
    outbox._db = FullDisk(outbox._db)
    fill(outbox, "e1", "m1", "m2", "p1", "e2", "e3")
    assert (["e1", "e2", "e3"], 3) == (topics(outbox), outbox.dropped.reports)
