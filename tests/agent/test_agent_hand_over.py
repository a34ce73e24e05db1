"""Commands that root calls, on a state folder that belongs to the agent's own user."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.agent_process import AgentProcess, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.commands.hand_over import acting_as_agent, agent_user, handed_over
from edgepack.trust import PrivateKey, keygen

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture
def keys(open_folder):
    return keygen(open_folder / "keys")


@pytest.fixture
def open_folder():
    """A folder that everybody may enter; pytest's own nobody else may."""
    folder = Path(tempfile.mkdtemp(prefix="edgepack-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def agent(open_folder, keys):
    """An agent whose state folder is nobody's."""
    keys.root_json.parent.chmod(0o755)
    found = AgentProcess(open_folder / "device", keys, None)
    state = found.folder / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    return found


@pytest.fixture
def secret(tmp_path, keys):
    """A bundle that only root can read."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return write_tiny_bundle(folder, key=PrivateKey.load(keys.release_key))


@pytest.fixture
def python():
    """The start of a command that anybody may call: a Python that finds what this one finds."""
    own = [entry for entry in sys.path if entry and not entry.startswith(sys.base_prefix)]
    path = os.pathsep.join(own)
    for program in (sys.executable, "/usr/bin/python3.11", "/usr/bin/python3"):
        words = ["/usr/bin/env", f"PYTHONPATH={path}", program]
        probe = [*words, "-c", "import edgepack.agent.main, numpy, cryptography, onnxruntime"]
        done = subprocess.run(
            probe, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
        )
        if done.returncode == 0:
            return words
    pytest.skip("no Python here that a user without rights may start")


def owners(folder):
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def test_what_root_installs_belongs_to_the_agent(agent, secret, python):
    """With and without a running agent, though that user cannot see the file; no copy is left."""
    main = [*python, "-m", "edgepack.agent.main"]
    config = ["--config", str(agent.config)]

    def command(verb, *rest):
        words = [*main, verb, *config, *rest]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    done = command("install", str(secret))
    assert 0 == done.returncode, done.stderr
    assert {NOBODY} == owners(agent.folder / "state")
    process = subprocess.Popen(
        [*main, "run", *config],
        user=NOBODY, group=NOBODY, extra_groups=[], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until((agent.folder / "state/agent.sock").exists, "socket")
        done = command("install", str(secret))
        assert (0, "tiny: serving 1.0.0") == (done.returncode, done.stdout[:19]), done.stderr
        assert 0 == command("root").returncode
    finally:
        process.terminate()
        assert 0 == process.wait(30)
    assert {NOBODY} == owners(agent.folder / "state")
    assert [] == list(agent.folder.glob("edgepack-*"))


def test_a_process_that_is_started_meanwhile_stays_the_agents(tmp_path):
    """Its saved user id too; afterwards this one is root again."""
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    with acting_as_agent(state):
        said = subprocess.run(
            ["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True
        ).stdout
    ids = {line.split(":")[0]: line.split()[1:] for line in said.splitlines() if ":" in line}
    assert [str(NOBODY)] * 4 == ids["Uid"] == ids["Gid"]
    assert [] == ids["Groups"]
    assert (0, 0, 0) == os.getresuid()


def test_files_of_a_folder_of_ones_own_are_not_copied(tmp_path):
    """Nothing has to be handed over."""
    file = tmp_path / "x.edgepack"
    assert None is agent_user(tmp_path)
    with handed_over(tmp_path, [file]) as paths:
        assert [file] == paths
