"""`edgepack-agent init`, `status` and `models`, as a person at the device sees them."""

import json
import re

import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.commands.init import own_device_id
from edgepack.agent.config import read_config
from edgepack.agent.main import main
from edgepack.trust import PrivateKey, keygen


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


@pytest.fixture
def agent(tmp_path, keys):
    return AgentProcess(tmp_path / "device", keys, None)


@pytest.fixture
def bundle(tmp_path, keys):
    return write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))


def init(tmp_path, keys, *more):
    config = tmp_path / "etc/agent.toml"
    return config, main(
        ["init", "--config", str(config), "--root", str(keys.root_json), "--broker", "", *more]
    )


def test_init_writes_what_the_agent_takes(tmp_path, keys, capsys):
    """With the root beside it, and says what to call next."""
    config, code = init(
        tmp_path, keys, "--broker", "mqtt://broker.example", "--tag", "line=a", "--username", "u"
    )
    assert 0 == code
    read = read_config(config)
    assert (own_device_id(), "mqtt://broker.example", "u", {"line": "a"}) == (
        read.device,
        read.broker.url,
        read.broker.username,
        read.tags,
    )
    assert keys.root_json.read_bytes() == (config.parent / "root.json").read_bytes()
    assert f"edgepack-agent run --config {config}" in capsys.readouterr().out
    assert ["agent.toml", "root.json"] == sorted(path.name for path in config.parent.iterdir())


def test_init_replaces_nothing_unless_it_is_told_to(tmp_path, keys, capsys):
    """A configuration that somebody wrote stays."""
    config, _ = init(tmp_path, keys, "--id", "first")
    assert 2 == init(tmp_path, keys, "--id", "second")[1]
    assert "--force replaces it" in capsys.readouterr().err
    assert "first" == read_config(config).device
    assert 0 == init(tmp_path, keys, "--id", "second", "--force")[1]
    assert "second" == read_config(config).device


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--id", "a/b"], "device id must match"),
        (["--broker", "http://x"], "broker url must be mqtt"),
        (["--tag", "line"], "--tag must be KEY=VALUE"),
        (["--root", "/nowhere/root.json"], "--root must name the root.json"),
    ],
)
def test_init_refuses_what_the_agent_would_refuse(tmp_path, keys, capsys, arguments, complaint):
    """In one line, and leaves nothing behind."""
    config, code = init(tmp_path, keys, *arguments)
    assert (2, False) == (code, config.exists())
    error = capsys.readouterr().err
    assert complaint in error
    assert 1 == error.count("\n")
    assert [] == list(config.parent.glob("*")) or not config.parent.exists()


def test_init_takes_the_root_that_lies_beside(tmp_path, keys):
    """Where nobody names another."""
    (tmp_path / "root.json").write_bytes(keys.root_json.read_bytes())
    config = tmp_path / "agent.toml"
    assert 0 == main(["init", "--config", str(config), "--broker", "", "--id", "x"])
    assert None is read_config(config).broker.url


def test_status_and_models_of_a_running_agent_and_of_none(agent, bundle):
    """The one answers; of the other nothing is said to be serving."""
    with running(agent):
        wait_until((agent.folder / "state/agent.sock").exists, "socket")
        assert 0 == agent.command("install", str(bundle)).returncode
        status = agent.command("status").stdout.splitlines()
        assert re.fullmatch(
            r"device d1: agent running \(up \d+ s, \d+\.\d MB\), no broker configured", status[0]
        )
        assert status[1].startswith("tiny: serving 1.0.0 (onnx-fp32)")
        state = json.loads(agent.command("status", "--json").stdout)
        assert agent.process.pid == state["agent"]["pid"]
        assert 0 == state["serving"]["tiny"]["requests"]
        wait_until(lambda: "confirmed" in agent.command("models").stdout, "the model is confirmed")
        head, row = agent.command("models").stdout.splitlines()
        assert ["MODEL", "VERSION", "VARIANT", "PHASE", "SIZE", "LATENCY", "MEMORY", "SINCE"] == (
            head.split()
        )
        assert ["tiny", "1.0.0", "onnx-fp32", "confirmed"] == row.split()[:4]
        assert "ms" in row
    stopped = agent.command("status").stdout.splitlines()
    assert "device d1: agent not running, no broker configured" == stopped[0]
    assert stopped[1].startswith("tiny: installed 1.0.0 (onnx-fp32), confirmed")
    models = agent.command("models", "--json")
    facts = json.loads(models.stdout)
    assert (False, "1.0.0") == (facts["running"], facts["models"][0]["version"])
    assert {"size_bytes", "latency_ms", "since_ms"} <= facts["models"][0].keys()
    assert "no agent runs" in agent.command("models").stderr
