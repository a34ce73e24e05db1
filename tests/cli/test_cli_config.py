"""Flags, environment and configuration file: which wins, and what is refused."""

import argparse
from pathlib import Path

import pytest

from edgepack.cli.config import DEFAULT_BROKER, settings
from edgepack.cli.errors import UsageError


@pytest.fixture
def configured(tmp_path):
    """Writes config.toml; gives the environment that finds it."""

    def write(text: str, **environment: str) -> dict[str, str]:
        folder = tmp_path / "home" / "edgepack"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(text)
        return {"XDG_CONFIG_HOME": str(tmp_path / "home"), **environment}

    return write


def given(**flags):
    return argparse.Namespace(**flags)


def test_flags_beat_the_environment_and_that_beats_the_file(configured):
    """The nearer to the command, the stronger."""
    environment = configured(
        'broker = "mqtt://file"\nprefix = "file"\nkeys = "k"',
        EDGEPACK_BROKER="mqtt://environment",
        EDGEPACK_PREFIX="environment",
    )
    found = settings(given(broker="mqtt://flag", prefix=None, keys=None), environment)
    assert ("mqtt://flag", "environment") == (found.broker, found.prefix)
    assert found.named_keys


def test_without_anything_there_are_defaults(tmp_path):
    """Nothing configured means loopback, the usual prefix, and keys beside the configuration."""
    found = settings(given(), {"XDG_CONFIG_HOME": str(tmp_path)})
    keys = tmp_path / "edgepack" / "keys"
    assert (DEFAULT_BROKER, "edgepack/v1") == (found.broker, found.prefix)
    assert (keys, keys / "root.json", False) == (found.keys, found.root, found.named_keys)


def test_the_root_is_looked_for_among_the_keys(tmp_path):
    """Naming the keys is enough where keygen made them."""
    found = settings(given(keys=Path("mine")), {"XDG_CONFIG_HOME": str(tmp_path)})
    assert Path("mine/root.json") == found.root


def test_paths_in_the_file_are_relative_to_it(configured, tmp_path):
    """A configuration folder can be moved with its keys."""
    found = settings(given(), configured('keys = "k"\nroot = "/etc/root.json"'))
    assert (tmp_path / "home" / "edgepack" / "k", Path("/etc/root.json")) == (
        found.keys,
        found.root,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('brocker = "mqtt://x"', "unknown key brocker"),
        ("broker = 5", "expected str"),
        ("broker =", "is not TOML"),
        ("#" * 70_000, "at most 65536 bytes"),
    ],
)
def test_a_wrong_configuration_is_an_error(configured, text, expected):
    """A typing mistake is not silently ignored."""
    with pytest.raises(UsageError, match=expected):
        settings(given(), configured(text))


def test_the_command_reads_it(edgepack, bundle, keys, monkeypatch, tmp_path):
    """`verify` without a flag finds the root through the environment, the file, or not at all."""
    assert 5 == edgepack("verify", bundle).code
    monkeypatch.setenv("EDGEPACK_KEYS", str(keys))
    assert 0 == edgepack("verify", bundle).code
    monkeypatch.delenv("EDGEPACK_KEYS")
    folder = tmp_path / "config-home" / "edgepack"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'root = "{keys / "root.json"}"')
    assert 0 == edgepack("verify", bundle).code
