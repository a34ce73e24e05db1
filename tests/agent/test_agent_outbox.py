"""Reports that wait on disk."""

from edgepack.agent.report.outbox import EVENT, METRIC, Outbox


def topics(outbox):
    return [report.topic for report in outbox.peek(100)]


def test_events_go_before_metrics_and_each_in_order(tmp_path):
    """What matters most is sent first."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    for topic, rank in [("m1", METRIC), ("e1", EVENT), ("m2", METRIC), ("e2", EVENT)]:
        outbox.put(topic, b"{}", rank=rank)
    assert ["e1", "e2", "m1", "m2"] == topics(outbox)


def test_a_full_box_drops_the_oldest_metrics_first_and_counts(tmp_path):
    """Events survive as long as there are metrics to drop."""
    outbox = Outbox(tmp_path / "o.db", max_rows=3)
    for topic, rank in [
        ("e1", EVENT),
        ("m1", METRIC),
        ("m2", METRIC),
        ("e2", EVENT),
        ("e3", EVENT),
    ]:
        outbox.put(topic, b"{}", rank=rank)
    assert (["e1", "e2", "e3"], 2, 3) == (topics(outbox), outbox.dropped, len(outbox))


def test_what_was_not_acknowledged_survives_a_restart(tmp_path):
    """Only `done` takes a report out."""
    outbox = Outbox(tmp_path / "o.db", max_rows=10)
    outbox.put("a", b"1", rank=EVENT)
    outbox.put("b", b"2", rank=EVENT)
    outbox.done(outbox.peek(1)[0].number)
    outbox.close()
    again = Outbox(tmp_path / "o.db", max_rows=10)
    assert (["b"], 1) == (topics(again), len(again))
