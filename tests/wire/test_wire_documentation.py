"""docs/mqtt.md: its examples parse with the real parsers, its topics are the real ones."""

import json
import re
from pathlib import Path

import pytest

from edgepack.fleet.watch import Row
from edgepack.trust.strict_json import render
from edgepack.wire import (
    DeviceTopics,
    parse_desired,
    parse_info,
    parse_reported,
    parse_request,
    parse_truth,
    render_desired,
    render_info,
    render_reported,
)
from edgepack.wire.audit import parse_event, render_event
from edgepack.wire.commands import parse_install
from edgepack.wire.messages import parse_flat

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `([^`]+)`\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))


def examples(section):
    return [
        block.encode() for block in re.findall(r"```json\n(.*?)```", SECTIONS[section], re.DOTALL)
    ]


def same(example, rendered):
    return render(json.loads(example)) == rendered


def test_every_topic_of_a_device_has_a_line_and_its_payload_a_section():
    """The table names exactly the topics that the code builds."""
    topics = DeviceTopics("p", "d")
    built = [
        topics.desired,
        topics.infer("<model>"),
        topics.truth("<model>"),
        topics.command("<op>"),
        topics.status,
        topics.info,
        topics.reported,
        topics.metrics("<model>"),
        topics.agent,
        topics.latest("<model>"),
        topics.prediction("<model>"),
        topics.action("<name>"),
        topics.event("<kind>"),
        topics.audit("<place>"),
        f"{topics.base}/out/reply/<requester>",
    ]
    table = re.findall(r"^\| `((?:in|out)/[^`]+)` \|", PAGE, re.MULTILINE)
    assert sorted(topic.removeprefix("p/d/") for topic in built) == sorted(table)
    # plain text, as a prediction, and as somebody configured it
    undescribed = {"out/status", "out/reply/<requester>", "out/action/<name>"}
    assert set(table) - undescribed == set(SECTIONS)


@pytest.mark.parametrize(
    ("section", "parse", "write"),
    [
        ("in/desired", parse_desired, render_desired),
        ("out/info", parse_info, render_info),
        ("out/reported", parse_reported, render_reported),
        ("out/audit/<place>", parse_event, render_event),
    ],
)
def test_documents_are_complete(section, parse, write):
    """An example has every field: parsed and written again it is the same document."""
    (example,) = examples(section)
    assert same(example, write(parse(example)))


def test_requests_and_truths_parse():
    """Both forms of a request, and both kinds of a truth."""
    flat, protocol = map(parse_request, examples("in/infer/<model>"))
    assert ("a7", "a8") == (flat.request_id, protocol.request_id)
    assert (1, 4) == protocol.tensors[0].shape
    label, value = map(parse_truth, examples("in/truth/<model>"))
    assert ("3", 17.25) == (label.label, value.value)


def test_commands_parse():
    """The example of a command is one."""
    (command,) = map(parse_install, examples("in/cmd/<op>"))
    assert ("digits", "panel-3") == (command.model, command.request_id)


@pytest.mark.parametrize(
    "section",
    [
        "out/metrics/<model>",
        "out/agent",
        "out/latest/<model>",
        "out/prediction/<model>",
        "out/event/<kind>",
    ],
)
def test_reports_are_flat(section):
    """What dashboards read has one level, and says when it was."""
    found = [parse_flat(example, what=section) for example in examples(section)]
    assert found
    for fields in found:
        assert "ts" in fields
        assert not [name for name, value in fields.items() if isinstance(value, dict | list)]


def test_what_watch_shows_is_documented():
    """Every figure that `watch` reads is on the page."""
    text = SECTIONS["out/metrics/<model>"]
    figures = [
        name for name, field in Row.__dataclass_fields__.items() if "float" in str(field.type)
    ]
    assert [] == [name for name in figures if name != "seen_s" and name not in text]
