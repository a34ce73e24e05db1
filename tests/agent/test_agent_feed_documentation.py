"""docs/inputs-and-actions.md: its examples are configurations, its tables the code's."""

import dataclasses
import re

import pytest
from support.repository import REPOSITORY

from edgepack.agent.config import read_config
from edgepack.agent.config.actions import ActionConfig, ResetConfig, WhenConfig
from edgepack.agent.config.inputs import FeatureConfig, FilesConfig, InputConfig, WindowConfig
from edgepack.agent.config.sections import LogConfig

PAGE = (REPOSITORY / "docs/inputs-and-actions.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_configuration(tmp_path, example):
    """The agent would start with it."""
    path = tmp_path / "agent.toml"
    path.write_text(example)
    assert read_config(path).root


@pytest.mark.parametrize(
    "section",
    [
        InputConfig,
        FeatureConfig,
        WindowConfig,
        FilesConfig,
        ActionConfig,
        WhenConfig,
        ResetConfig,
        LogConfig,
    ],
)
def test_every_key_is_on_the_page(section):
    """By its name."""
    names = {field.name for field in dataclasses.fields(section)} - {"poll_s"}
    assert set() == {name for name in names if not re.search(rf"\b{name}\b", PAGE)}


def test_every_reason_is_on_the_page():
    """What counts as rejected has a word, and each word a line."""
    folder = REPOSITORY / "device_agent/edgepack/agent/feed"
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    words = set(re.findall(r'MessageError\(\s*"(\w+)"', code)) | {"dropped", "no_model", "stale"}
    table = PAGE.partition("| reason | meaning |")[2].partition("\n\n")[0]
    assert words <= set(re.findall(r"`(\w+)`", table))
