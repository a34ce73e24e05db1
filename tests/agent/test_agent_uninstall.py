"""`edgepack-agent uninstall`: what goes, what stays, and what never goes by mistake."""

import subprocess

import paho.mqtt.client as mqtt
import pytest
from support.agent_process import Operator, wait_until
from support.installed_device import OLD, InstalledDevice
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.main import main
from edgepack.trust import PrivateKey, keygen


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


def retained(port, pattern):
    """Retained topics, as somebody who may read everything sees them."""
    found, ready = set(), []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.on_message = lambda _c, _u, m: (
        found.add(m.topic) if m.topic != "end" else ready.append(1)
    )
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        client.subscribe([(pattern, 1), ("end", 1)])
        client.publish("end", b"x", qos=1, retain=False)
        wait_until(lambda: ready, "the broker has sent what it retains")
        return found
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_purge_leaves_no_trace(tmp_path, keys, own_broker):
    """The service, every file, and every topic, also those of a model that is gone."""
    broker = f'[broker]\nurl = "{own_broker.url}"\n[metrics]\ninterval_s = 0.3\nslow_s = 0.3\n'
    device = InstalledDevice(tmp_path / "root", keys, broker=broker)
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    operator = Operator(own_broker.port, keys)
    base = "edgepack/v1/d1"
    try:
        device.systemctl("start", "edgepack-agent.service")
        device.wait_release(OLD)
        operator.desire(operator.upload(bundle))
        operator.wait_phase("confirmed")
        wait_until(lambda: operator.documents(f"{base}/out/latest/tiny"), "figures are said")
        wait_until(
            lambda: any("/out/audit/" in topic for topic, _, _ in operator.messages), "history"
        )
        before = retained(own_broker.port, f"{base}/#")
        assert {f"{base}/in/desired", f"{base}/out/info", f"{base}/out/latest/tiny"} <= before
        done = device.command("uninstall", "--purge", "--yes", "--prefix", str(device.prefix))
        assert 0 == done.returncode, done.stderr
        assert set() == retained(own_broker.port, f"{base}/#")
    finally:
        operator.close()
        device.systemctl("stop", "edgepack-agent.service")
    here = device.installation
    for path in (here.base, here.etc, here.state, here.unit, here.command):
        assert not path.exists(), path
        assert not path.is_symlink(), path
    calls = (device.prefix / "run/calls").read_text().splitlines()
    assert "disable --now edgepack-agent.service" in calls
    assert "daemon-reload" == [call for call in calls if not call.startswith("stop")][-1]


@pytest.fixture
def device(tmp_path, keys):
    """An installed device that no agent runs on."""
    found = InstalledDevice(tmp_path / "root", keys)
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    assert 0 == found.command("install", str(bundle)).returncode
    return found


def test_without_purge_the_configuration_stays(device):
    """And what stays is said."""
    done = device.command("uninstall", "--yes", "--prefix", str(device.prefix))
    assert 0 == done.returncode, done.stderr
    here = device.installation
    assert (False, False, True) == (here.base.exists(), here.state.exists(), here.config.exists())
    assert f"left: {here.etc} (--purge deletes it)" in done.stdout


def test_nothing_is_done_unasked_nor_without_the_broker(device):
    """Nobody said yes; or the broker that shall forget cannot be reached."""
    here = device.installation
    words = device.words("uninstall", "--prefix", str(device.prefix))
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (2, True) == (done.returncode, f"will be deleted: {here.state}" in done.stderr)
    with here.config.open("a") as file:
        file.write('[broker]\nurl = "mqtt://127.0.0.1:1"\n')
    purge = ("uninstall", "--purge", "--yes", "--prefix", str(device.prefix))
    done = device.command(*purge)
    assert (7, True) == (done.returncode, "broker cannot be reached" in done.stderr)
    assert (True, True) == (here.state.exists(), here.base.exists())
    done = device.command(*purge, "--offline")
    assert (0, False) == (done.returncode, here.state.exists())
    assert "left: what the broker retains of d1: it was not asked" in done.stdout


def test_a_state_folder_that_is_none_is_not_deleted(tmp_path, keys, capsys):
    """Somebody's home, by a mistake in agent.toml."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    config = tmp_path / "agent.toml"
    config.write_text(f'root = "{keys.root_json}"\nstate = "{home}"\n')
    code = main(["uninstall", "--yes", "--config", str(config), "--prefix", str(tmp_path)])
    assert (2, True) == (code, (home / "photos").exists())
    assert "does not look like an agent's state folder" in capsys.readouterr().err
