"""The agent without any broker: install from a file, status, refusals."""

import json
import subprocess
import sys

import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.tiny_bundle import write_tiny_bundle

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


def test_installing_while_no_agent_runs(agent, bundle):
    """The next start goes on with the probation."""
    done = agent.command("install", str(bundle))
    expected = "tiny: installed 1.0.0 (onnx-fp32), probation, held (install by hand)\n"
    assert (0, expected) == (done.returncode, done.stdout)
    with running(agent):
        wait_until(
            lambda: "confirmed" in agent.command("status").stdout, "confirmed after the start"
        )


def test_installing_into_a_running_agent(agent, bundle):
    """The command speaks to the running agent through its socket."""
    with running(agent):
        wait_until((agent.folder / "state/agent.sock").exists, "socket")
        done = agent.command("install", str(bundle), "--json")
        assert (0, "probation") == (done.returncode, json.loads(done.stdout)["model"]["phase"])
        wait_until(lambda: "confirmed" in agent.command("status").stdout, "confirmed")
        again = agent.command("install", str(bundle))
        assert (0, "tiny: serving 1.0.0") == (again.returncode, again.stdout[:19])


@pytest.mark.parametrize("is_running", [False, True])
def test_a_refused_file_leaves_the_running_model(agent, bundle, tmp_path, is_running):
    """A flipped byte and a stranger's signature are refused with a reason and exit code 8."""
    flipped = tmp_path / "flipped.edgepack"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    stranger = write_tiny_bundle(tmp_path, version="6.6.6", key=PrivateKey.generate())
    assert 0 == agent.command("install", str(bundle)).returncode

    def refuse():
        for path, reason in [(flipped, "bundle_invalid"), (stranger, "not_trusted")]:
            done = agent.command("install", str(path))
            assert (8, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
            assert done.stderr.startswith(f"edgepack-agent: error: {reason}: ")
        word = "serving" if is_running else "installed"
        assert f"tiny: {word} 1.0.0" in agent.command("status").stdout

    if is_running:
        with running(agent):
            wait_until((agent.folder / "state/agent.sock").exists, "socket")
            refuse()
    else:
        refuse()


def test_status_before_anything_is_installed(agent):
    """An empty device is no error."""
    done = agent.command("status")
    expected = "device d1: agent not running, no broker configured\nno model installed\n"
    assert (0, expected) == (done.returncode, done.stdout)


def test_installing_into_an_agent_that_has_just_begun_to_start(agent, bundle):
    """The command waits for it instead of finding the state folder in use."""
    with running(agent):
        wait_until((agent.folder / "state/agent.lock").exists, "lock")
        done = agent.command("install", str(bundle))
        assert 0 == done.returncode, done.stderr


def test_a_second_agent_on_the_same_state_is_refused(agent, bundle):
    """Two processes never share a state folder."""
    with running(agent):
        wait_until((agent.folder / "state/agent.sock").exists, "socket")
        second = agent.command("run")
        assert 9 == second.returncode
        assert "in use by another edgepack-agent" in second.stderr


def test_a_mistake_in_the_configuration_is_one_line(agent):
    """Exit code 2, no traceback."""
    agent.config.write_text('root = "x"\nbrokr = 1\n')
    done = agent.command("run")
    assert (2, "edgepack-agent: error: agent.toml: unknown key brokr\n") == (
        done.returncode,
        done.stderr,
    )


def test_what_it_imports(agent, bundle):
    """The agent at work has loaded no converter, no training framework, and no cryptography."""
    probe = (
        "import asyncio, sys, json\n"
        "from edgepack.agent.main import main\n"
        "import edgepack.agent.compose as compose\n"
        "started = compose.Agent.start\n"
        "async def start(self):\n"
        "    await started(self)\n"
        "    print(json.dumps(sorted(sys.modules)), flush=True)\n"
        "    import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
        "compose.Agent.start = start\n"
        f"sys.exit(main(['run', '--config', {str(agent.config)!r}]))\n"
    )
    assert 0 == agent.command("install", str(bundle)).returncode
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr
    modules = json.loads(done.stdout)
    roots = {name.partition(".")[0] for name in modules}
    assert {"onnxruntime", "numpy", "aiomqtt"} <= roots
    unwanted = {
        "onnx",
        "sklearn",
        "skl2onnx",
        "torch",
        "pandas",
        "pyarrow",
        "scipy",
        "cryptography",
        "h11",
    }
    assert set() == unwanted & roots
    assert [] == [name for name in modules if name.startswith("edgepack.agent.serve.http")]
    ours = {".".join(name.split(".")[:2]) for name in modules if name.startswith("edgepack.")}
    expected = {
        f"edgepack.{name}" for name in ("agent", "bundle", "monitor", "runtime", "trust", "wire")
    }
    assert expected == ours
    assert not [name for name in modules if name.startswith("edgepack.agent.feed")]


@pytest.mark.parametrize("is_running", [False, True])
def test_going_back_by_hand(agent, bundle, tmp_path, keys, is_running):
    """With or without a running agent the version before answers, and the hold is seen."""
    key = PrivateKey.load(keys.release_key)
    newer = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=key)
    with running(agent):
        wait_until((agent.folder / "state/agent.sock").exists, "socket")
        agent.command("install", str(bundle))
        wait_until(lambda: "confirmed" in agent.command("status").stdout, "confirmed")
        agent.command("install", str(newer))
        if is_running:
            done = agent.command("rollback", "tiny", "--to", "1.0.0")
        else:
            agent.stop()
            done = agent.command("rollback", "tiny")
        expected = (
            " 1.0.0 (onnx-fp32), confirmed, held (rollback by hand) "
            "(rolled back by hand from 1.1.0)\n"
        )
        word = "serving" if is_running else "installed"
        assert (0, f"tiny: {word}{expected}") == (done.returncode, done.stdout)
    assert f"tiny: installed{expected}" in agent.command("status").stdout
    again = agent.command("rollback", "tiny")
    assert (2, "already_rolled_back") == (again.returncode, again.stderr.split(": ")[2])
    released = json.loads(agent.command("release", "tiny", "--json").stdout)["model"]
    assert (False, "1.0.0") == (released["held"], released["active"]["version"])
