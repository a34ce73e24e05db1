"""What the agent logs: stable event names with fields, documented, at a bounded rate."""

import ast
import logging
import re
from pathlib import Path

import pytest

from edgepack.agent.log_rate import BoundedRate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
FIELD = r"([a-z_0-9]+|%s)=(%[a-z0-9.]+|[A-Za-z0-9_. -]+)"
FORM = re.compile(rf"([a-z_]+\.([a-z_]+|%s)|%s)( {FIELD})*")


def calls():
    """Every call of a logger in the agent: where, level, text."""
    for path in sorted((ROOT / "device_agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and ast.unparse(node.func.value) in ("logger", "_log", "log")
            ):
                text = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                yield f"{path.name}:{node.lineno}", node.func.attr, text


def test_every_line_is_an_event_with_fields():
    """`noun.verb key=value …`, so that a line can be searched for and taken apart."""
    found = list(calls())
    assert len(found) > 40
    assert [] == [
        (where, text) for where, _, text in found if text is None or not FORM.fullmatch(text)
    ]


def test_the_documented_events_exist():
    """Whoever searches a log for a word of docs/operations.md does not search in vain."""
    section = PAGE.partition("\n## Logs\n")[2].partition("\n## ")[0]
    documented = re.findall(r"`([a-z_]+\.(?:[a-z_]+|<[a-z]+>))`", section)
    files = (ROOT / "device_agent").rglob("*.py")
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert len(documented) > 50
    assert [] == [
        name
        for name in documented
        if f'"{re.sub("<.*>", "%s", name)}' not in code
        and f'"{name.partition(".")[0]}.%s ' not in code
    ]


class Clock:
    """Seconds that a test sets."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def log():
    """A logger with a bounded rate, and the lines that it wrote."""
    lines, clock = [], Clock()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handler.addFilter(BoundedRate(burst=3, window_s=60.0, clock=clock))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, lines, clock


def test_an_event_that_repeats_is_counted(log):
    """The first ones are written, the rest counted; the next line tells how many."""
    logger, lines, clock = log
    for number in range(10):
        logger.warning("reply.lost number=%d", number)
    logger.warning("broker.lost error=%s", "x")  # another event is not held back
    expected = [f"reply.lost number={number}" for number in range(3)]
    expected[-1] += " further=counted"
    assert [*expected, "broker.lost error=x"] == lines
    clock.now_s = 61.0
    logger.warning("reply.lost number=%d", 10)
    assert "reply.lost number=10 repeated=7" == lines[-1]
    logger.warning("reply.lost number=%d", 11)
    assert "reply.lost number=11" == lines[-1]


def test_names_that_never_end_take_no_memory(log):
    """A text that is different each time is no way to fill a device's memory."""
    logger, lines, _ = log
    for number in range(5000):
        logger.warning(f"made{number}.up")
    (handler,) = logger.handlers
    (bounded,) = handler.filters
    assert len(bounded._events) <= 512
    assert 5000 == len(lines)
