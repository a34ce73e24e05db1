"""`edgepack-agent upgrade` on a device of the test's own: real releases, a real agent."""

import json
import os
import signal
import sqlite3
import subprocess

import pytest
from support.agent_process import wait_until
from support.installed_device import OLD, InstalledDevice
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.main import main
from edgepack.trust import PrivateKey, keygen

pytestmark = pytest.mark.timeout(600)

JOURNAL = "edgepack/agent/install/journal.py"
FOREGROUND = "edgepack/agent/commands/foreground.py"
CRASHES = {FOREGROUND: ("    gc.disable()", "    raise SystemExit(1)\n    gc.disable()")}
WRONG = """

def compare(*_: object, **__: object) -> Comparison:
    raise ParityError("agreement with nothing")
"""
NEWER_STATE = {JOURNAL: ("_SCHEMA_VERSION = 1", "_SCHEMA_VERSION = 2")}


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


@pytest.fixture
def device(tmp_path, keys):
    """An installed device whose agent serves a confirmed model."""
    found = InstalledDevice(tmp_path / "root", keys)
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    assert 0 == found.command("install", str(bundle)).returncode
    found.systemctl("start", "edgepack-agent.service")
    try:
        found.wait_release(OLD)
        yield found
    finally:
        found.systemctl("stop", "edgepack-agent.service")


def schema(device):
    database = sqlite3.connect(device.installation.state / "agent.db")
    try:
        return database.execute("PRAGMA user_version").fetchone()[0]
    finally:
        database.close()


def assert_old_answers(device):
    """The old release runs, with its model, and nothing is left of the try."""
    status = device.wait_release(OLD)
    assert ["tiny"] == list(status["serving"])
    assert (OLD, []) == (device.current(), device.leftovers())
    assert {OLD} == releases(device)


def releases(device):
    return {path.name for path in device.installation.releases.iterdir()}


def test_an_upgrade_and_a_way_back(device):
    """The new release serves the model; what cannot read the state that it changed is refused."""
    before = device.status()["agent"]["pid"]
    done = device.upgrade(device.wheelhouse("0.2.0", NEWER_STATE), "--json")
    assert 0 == done.returncode, done.stderr
    new = json.loads(done.stdout)["new"]
    assert new.startswith("0.2.0-")
    status = device.wait_release(new)
    assert ["tiny"] == list(status["serving"])
    assert before != status["agent"]["pid"]
    assert (new, [], 2) == (device.current(), device.leftovers(), schema(device))
    assert {OLD, new} == releases(device)
    assert f"{new} runs already" in device.upgrade(device.prefix / "house-0.2.0-1000").stdout
    older = device.upgrade(device.wheelhouse("0.1.1", sequence=999))
    assert (8, True) == (older.returncode, "--older takes it all the same" in older.stderr)
    older = device.upgrade(device.prefix / "house-0.1.1-999", "--older")
    assert (8, True) == (older.returncode, "written by a newer agent" in older.stderr)
    assert new == device.wait_release(new)["agent"]["release"]


def test_a_release_that_cannot_run_is_taken_back(device):
    """It passes its own check, changes the state and then crashes: the old one answers again."""
    done = device.upgrade(device.wheelhouse("0.3.0", {**CRASHES, **NEWER_STATE}), "--wait", "2")
    assert 8 == done.returncode
    assert "was taken back: it does not answer" in done.stderr
    assert_old_answers(device)
    assert 1 == schema(device)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"edgepack/agent/compose.py": ("import asyncio", "import nowhere")}, "nowhere"),
        ({"edgepack/runtime/parity.py": ("", WRONG)}, "agreement with nothing"),
    ],
)
def test_a_release_that_fails_its_check_never_runs(device, changes, complaint):
    """Not even a restart is seen."""
    pid = device.status()["agent"]["pid"]
    done = device.upgrade(device.wheelhouse("0.3.0", changes))
    assert 8 == done.returncode
    assert "does not pass its check" in done.stderr
    assert complaint in done.stderr
    assert pid == device.status()["agent"]["pid"]
    assert_old_answers(device)


def test_wheels_that_nobody_vouches_for_are_refused(device, tmp_path):
    """A changed wheel, a stranger's key, no manifest: nothing is made of them."""
    tampered = device.wheelhouse("0.3.0", sequence=1)
    (wheel,) = tampered.glob("edgepack-*.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    stranger = device.wheelhouse("0.3.0", sequence=2, key=keygen(tmp_path / "x").release_key)
    unsigned = device.wheelhouse("0.3.0", sequence=3)
    (unsigned / "wheelhouse.json").unlink()
    for folder, code, complaint in [
        (tampered, 4, "is not the file that was signed"),
        (stranger, 5, "role release: must be signed by"),
        (unsigned, 4, "must hold a wheelhouse.json"),
    ]:
        done = device.upgrade(folder)
        assert (code, True) == (done.returncode, complaint in done.stderr), done.stderr
    assert [OLD] == [path.name for path in device.installation.releases.iterdir()]
    assert_old_answers(device)


def test_an_upgrade_that_is_killed_while_it_watches_is_settled_at_the_next_start(device):
    """Without anybody who watched, a release that was not proven goes; one that was, stays."""
    folder = device.wheelhouse("0.2.0")
    for proven in (False, True):
        words = device.words("upgrade", str(folder), "--prefix", str(device.prefix))
        process = subprocess.Popen([*words, "--steady", "100"], env=device.environment)
        try:
            wait_until(lambda: device.current() != OLD, "the switch", 240)
            new = device.current()
            device.wait_release(new)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if proven:
            (device.installation.state / "release-healthy").write_text(new)
        device.systemctl("restart", "edgepack-agent.service")
        if proven:
            assert ["tiny"] == list(device.wait_release(new)["serving"])
            assert (new, []) == (device.current(), device.leftovers())
        else:
            # the start that settles it tidies up; a command of that release could not end well
            wait_until(lambda: releases(device) == {OLD}, "it is settled", 120)
            assert_old_answers(device)


def test_an_agent_that_was_installed_in_another_way_says_so(tmp_path, keys):
    """One line, and nothing is made."""
    found = InstalledDevice(tmp_path / "root", keys)
    folder = found.wheelhouse("0.2.0")
    (found.prefix / "run/systemd/system").rmdir()
    done = found.upgrade(folder)
    assert (8, True) == (done.returncode, "no systemd service here" in done.stderr)
    done = found.upgrade(folder, "--no-restart")
    assert 0 == done.returncode, done.stderr
    assert "is what starts next" in done.stdout
    assert found.current().startswith("0.2.0-")
    found.installation.current.unlink()
    words = [found.installation.releases / OLD / "bin/edgepack-agent", "upgrade", folder]
    words += ["--config", found.installation.config, "--prefix", found.prefix]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (8, True) == (done.returncode, "`edgepack setup` installs" in done.stderr)
    assert os.listdir(found.installation.state) == []


@pytest.mark.parametrize("words", [[], ["wheels", "--release", "1.0"]])
def test_an_upgrade_needs_one_source(words, capsys):
    """A folder of wheels or a release that lies there; neither or both is a usage error."""
    assert 2 == main(["upgrade", *words])
    assert "name either a WHEELHOUSE or --release NAME" in capsys.readouterr().err
