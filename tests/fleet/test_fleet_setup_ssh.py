"""`edgepack setup` against a real sshd, a real broker and an agent that starts as its unit says."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.agent_process import wait_until
from support.brokers import Mosquitto, running
from support.ssh_device import PI, SshDevice, require_ssh_devices, write_dependencies

from edgepack.wire.device_id import default_device_id

PASSWORD = "correct-horse-battery"


@dataclass
class Workstation:
    """Who calls `edgepack setup`: keys, a broker with passwords, wheels, a cache."""

    folder: Path
    root: Path
    broker: Mosquitto
    wheels: Path

    def setup(self, *words: str, code: int = 0) -> Any:
        """Call it; what `--json` gives, of the one host if there is one."""
        done = self.call(*words, "--json")
        assert code == done.returncode, done.stderr + done.stdout
        assert PASSWORD not in done.stdout + done.stderr
        hosts = json.loads(done.stdout)["hosts"]
        return hosts[0] if len(hosts) == 1 else {one["host"]: one for one in hosts}

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgepack.cli.main", "setup", "--root", str(self.root)]
        pip = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": "/dev/null",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        environment = {**kept, **pip, "XDG_CACHE_HOME": str(self.folder / "cache")}
        return subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=environment,
        )

    def words(self, device: SshDevice, *more: str, user: str = PI) -> list[str]:
        """The usual words for a device."""
        broker = ["--broker", self.broker.url, "--password-file", str(self.folder / "password")]
        more = ("--http", "127.0.0.1:0", *more)  # this machine's own network
        return [f"{user}@{device.name}", "--ssh-config", str(device.ssh_config), *broker, *more]


@pytest.fixture(scope="module")
def workstation(keys, tmp_path_factory):
    """Everything but the devices; it is shared, so that wheels are got once."""
    require_ssh_devices()
    folder = tmp_path_factory.mktemp("workstation")
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "users").touch(mode=0o600)
    for name in ("press-7", "press-8"):
        user = default_device_id(name, SshDevice.machine_id_of(name))
        command = ["mosquitto_passwd", "-b", folder / "users", user, PASSWORD]
        subprocess.run(command, check=True)
    extra = f"allow_anonymous false\npassword_file {folder / 'users'}"
    with running(Mosquitto(folder, extra=extra)) as broker:
        wheels = write_dependencies(folder / "wheels")
        yield Workstation(folder, keys.files.root_json, broker, wheels)


@pytest.fixture
def device(tmp_path):
    """A fresh device."""
    device = SshDevice(tmp_path, "press-7")
    device.start()
    yield device
    device.stop()


def spoil(workstation: Workstation, folder: Path, line: str) -> Workstation:
    """The same workstation with a newer engine, in which a line runs at every start of Python."""
    wheels = write_dependencies(folder / "spoilt", {"onnxruntime": "99.0"})
    with zipfile.ZipFile(wheels / "onnxruntime-99.0-py3-none-any.whl", "a") as archive:
        archive.writestr("spoilt.pth", line + "\n")
    return Workstation(folder, workstation.root, workstation.broker, wheels)


@pytest.mark.timeout(600)  # six calls on a machine that may be busy
def test_the_life_of_a_device(workstation, device, tmp_path):
    """Looked at, installed, left alone, configured anew, upgraded; and taken back when it fails."""
    words = workstation.words(device, "--tag", "line=a")
    looked = workstation.setup(*words, "--dry-run")
    assert "would be installed" == looked["result"]
    assert [] == device.systemctl_calls()
    first = workstation.setup(*words)
    name = default_device_id(device.name, device.machine_id)
    expected = ("installed", name, True, looked["release"])
    assert expected == tuple(first[key] for key in ("result", "device", "online", "release"))
    assert ["daemon-reload", "enable edgepack-agent", "restart edgepack-agent"] == (
        device.systemctl_calls()
    )
    owners = device.run("cd /etc/edgepack; stat -c '%a %U %G %n' * /var/lib/edgepack").stdout
    assert [
        "644 root root agent.toml",
        "640 root edgepack mqtt-password",
        "644 root root root.json",
        "750 edgepack edgepack /var/lib/edgepack",
    ] == owners.splitlines()
    assert f"{PASSWORD}\n" == device.read("/etc/edgepack/mqtt-password")
    assert workstation.root.read_text() == device.read("/etc/edgepack/root.json")
    assert "" == device.run("ls -A /var/tmp").stdout
    assert PASSWORD not in device.read("/var/log/edgepack-agent.log")
    agent = device.run("cat /run/edgepack-agent.pid").stdout
    assert "edgepack\n" == device.run(f"ps -o user= -p {agent}").stdout

    edited = device.read("/etc/edgepack/agent.toml") + "\n[metrics]  # mine\ninterval_s = 7\n"
    device.run(f"cat >/etc/edgepack/agent.toml <<'END'\n{edited}END\n")
    again = workstation.setup(*words)
    assert ("unchanged", True) == (again["result"], again["online"])
    assert "is-active edgepack-agent" == device.systemctl_calls()[-1]
    assert agent == device.run("cat /run/edgepack-agent.pid").stdout
    assert edited == device.read("/etc/edgepack/agent.toml")

    changed = workstation.setup(*words, "--tag", "hall=2")
    assert "reconfigured (tags.hall)" == changed["result"]
    text = device.read("/etc/edgepack/agent.toml")
    assert 'hall = "2"' in text
    assert text.endswith("\n[metrics]  # mine\ninterval_s = 7\n")
    refused = workstation.setup(*words, "--id", "another", code=2)
    assert name in refused["error"]

    hung = spoil(
        workstation, tmp_path / "h", "import os, sys; 'run' in sys.orig_argv and os._exit(3)"
    )
    failed = hung.setup(*words, "--refresh", "--timeout", "5", code=8)
    assert failed["error"].endswith(f"{first['release']} answers again")
    assert [first["release"]] == device.run("ls /opt/edgepack/releases").stdout.split()
    better = spoil(workstation, tmp_path / "b", "# better")
    upgraded = better.setup(*words, "--refresh")
    assert ("upgraded", True) == (upgraded["result"], upgraded["online"])
    kept = device.run("ls /opt/edgepack/releases").stdout.split()
    assert sorted([first["release"], upgraded["release"]]) == sorted(kept)


@pytest.mark.timeout(600)
def test_one_host_that_fails_stops_no_other(workstation, device, tmp_path):
    """The result has a line for each; the exit code is that of a failure."""
    poor = SshDevice(tmp_path, "press-8", more="rm /usr/bin/sudo")
    poor.start()
    try:
        config = tmp_path / "both"
        config.write_text(
            device.ssh_config.read_text().replace("Host *", f"Host {device.name}", 1)
            + poor.ssh_config.read_text().replace("Host *", f"Host {poor.name}", 1)
            + device.ssh_config.read_text().replace("Host *", "Host twin", 1)
            + "Host twin\n  HostName 127.0.0.1\nHost away\n  HostName 127.0.0.1\n  Port 1\n"
        )
        words = workstation.words(device)
        words[words.index("--ssh-config") + 1] = str(config)
        hosts = (f"{PI}@{poor.name}", "away", f"{PI}@twin")
        done = workstation.setup(*hosts, *words, code=8)
    finally:
        poor.stop()
    assert (8, 7) == (done[f"{PI}@{poor.name}"]["exit_code"], done["away"]["exit_code"])
    assert "neither root nor sudo" in done[f"{PI}@{poor.name}"]["error"]
    assert "refused" in done["away"]["error"]
    one, other = sorted(
        (done[f"{PI}@{device.name}"], done[f"{PI}@twin"]), key=lambda end: end["exit_code"]
    )
    assert (0, "installed", True) == (one["exit_code"], one["result"], one["online"])
    assert f"{one['host']} is device {one['device']} already" == other["error"]


@pytest.mark.timeout(600)
def test_sudo_that_asks_for_a_password(workstation, tmp_path):
    """Nobody is asked and nothing hangs: one line says what to do, and what it says mends it."""
    asks = f"printf '%s\\n' '{PI} ALL=(ALL) ALL' >/etc/sudoers.d/{PI}\n"
    asks += f"printf '%s\\n' '{PI}:{PASSWORD}' | chpasswd"
    device = SshDevice(tmp_path, "press-7", more=asks)
    device.start()
    try:
        refused = workstation.setup(*workstation.words(device), code=8)
        assert "sudo asks for a password there: --sudo-password-file, or" in refused["error"]
        (tmp_path / f"{device.name}.sudo").write_text(f"{PASSWORD}\nsecond line\n")
        (tmp_path / "wrong").write_text("x'; reboot\n")
        told = ("--sudo-password-file", str(tmp_path / "wrong"))
        wrong = workstation.setup(*workstation.words(device, *told), code=8)
        assert "sudo there does not take the password" in wrong["error"]
        told = ("--sudo-password-file", str(tmp_path / "{host}.sudo"))
        done = workstation.setup(*workstation.words(device, *told))
        assert ("installed", True) == (done["result"], done["online"])
        again = workstation.setup(*workstation.words(device, *told))
        assert ("unchanged", True) == (again["result"], again["online"])
        assert "" == device.run("ls -A /var/tmp").stdout
        _, command, _ = refused["error"].split("`")
        rule = command.partition("|")[0]
        device.run(f"USER={PI}; {rule} >/etc/sudoers.d/edgepack-setup; rm /etc/sudoers.d/{PI}")
        looked = workstation.setup(*workstation.words(device), "--dry-run")
        assert "would be unchanged" == looked["result"]
    finally:
        device.stop()


def test_a_host_key_that_is_not_known(workstation, device):
    """Nothing is sent to a machine that may be another one."""
    known = device.folder / "known_hosts"
    right = known.read_text()
    known.write_text("")
    unknown = workstation.setup(*workstation.words(device), code=7)
    assert "its host key is not known here" == unknown["error"]
    other = (device.folder / "user_key.pub").read_text()
    known.write_text(f"{right.split()[0]} {other}")
    changed = workstation.setup(*workstation.words(device), code=7)
    assert "its host key is another one than it was" == changed["error"]
    assert 0 != device.run("true").returncode  # the test's own ssh refuses, too


@pytest.mark.timeout(600)
def test_a_stick(workstation, device, keys, tmp_path):
    """A folder that installs itself: no network, no ssh, an id of the device's own."""
    stick = tmp_path / "stick"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = workstation.call(
        *("--wheelhouse", str(stick), "--platform", f"{os.uname().machine}:{version}"),
        *("--broker", workstation.broker.url, "--keys", str(keys.files.root_json.parent)),
        *("--http", "127.0.0.1:0"),
    )
    assert 0 == done.returncode, done.stderr
    assert ", signed\n" in done.stdout
    refused = workstation.call(
        *("--wheelhouse", str(stick), "--platform", "x86_64:3.11", "--broker", "mqtt://b"),
        *("--password-file", "x"),
    )
    assert (2, True) == (refused.returncode, "do not go on a stick" in refused.stderr)
    installed = device.run(f"sh {stick}/install.sh")
    assert (0, "") == (installed.returncode, installed.stderr)
    text = device.read("/etc/edgepack/agent.toml")
    name = default_device_id(device.name, device.machine_id)
    assert text.startswith(f'device = "{name}"\n')
    assert 'listen = "127.0.0.1:0"' in text
    assert f'url = "{workstation.broker.url}"' in text

    def status() -> dict[str, Any] | None:
        found = json.loads(device.run("edgepack-agent status --json").stdout)
        return found if found["running"] else None

    assert name == wait_until(status, "the agent answers")["device"]
    again = device.run(f"sh {stick}/install.sh")
    assert (0, True) == (again.returncode, "config\tunchanged" in again.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-oProxyCommand=x", "--broker", "mqtt://b"], "unrecognized arguments"),
        (["--broker", "mqtt://b", "--", "-oProxyCommand=x"], "host must be [USER@]HOST"),
        (["pi@press-7"], "not for a device"),
        (["pi@press-7", "--broker", "mqtt://u:secret@b"], "must not hold a user or a password"),
        (["pi@a", "pi@b", "--broker", "mqtt://b", "--id", "x"], "--id goes with one host"),
        (["pi@a", "--broker", "mqtt://b", "--tag", "line"], "--tag must be KEY=VALUE"),
        (["pi@a", "--broker", "mqtt://b", "--http", "8080"], "--http must be HOST:PORT"),
        (["--broker", "mqtt://b"], "name hosts"),
        (["pi@a", "--broker", "mqtt://b", "--platform", "x:3.11"], "--platform goes with"),
        (["--broker", "mqtt://b", "--wheelhouse", "d", "--dry-run"], "--dry-run is for hosts"),
        (["--broker", "mqtt://b", "--wheelhouse", "d", "--port", "22"], "--port is for hosts"),
        (
            ["--broker", "mqtt://b", "--wheelhouse", "d", "--sudo-password-file", "f"],
            "--sudo-password-file is for hosts",
        ),
    ],
)
def test_what_is_typed_wrong(keys, tmp_path, words, said):
    """It ends with 2 before anything is called."""
    done = Workstation(tmp_path, keys.files.root_json, None, tmp_path).call(*words)
    assert (2, True) == (done.returncode, said in done.stderr), done.stderr
    assert "secret" not in done.stderr
