"""The agent as a systemd service: what it tells systemd, and what its unit allows it."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys

import pytest
from support.agent_process import AGENT, DEADLINE_S, AgentProcess, running, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.systemd.notify import Notifier
from edgepack.agent.systemd.service import Progress, Service, Work
from edgepack.agent.systemd.unit import unit_text
from edgepack.trust import PrivateKey, keygen

_PR_SET_MDWE = 65  # what MemoryDenyWriteExecute= stands for, without systemd; Linux 6.3


class Systemd:
    """The end of the notification socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._door.settimeout(DEADLINE_S)
        self.lines: list[str] = []

    def hear(self) -> list[str]:
        """The lines of the next datagram."""
        lines = self._door.recv(4096).decode().split("\n")
        self.lines += lines
        return lines

    def hear_until(self, wanted: str) -> None:
        """Wait for a line."""
        while wanted not in self.hear():
            pass

    def close(self) -> None:
        self._door.close()


@pytest.fixture
def systemd(tmp_path):
    system = Systemd(str(tmp_path / "notify"))
    yield system
    system.close()


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


def test_the_agent_tells_systemd_its_whole_life(tmp_path, systemd, keys, monkeypatch):
    """Ready when it serves, signs of life and a status while it does, stopping at the end."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    agent = AgentProcess(tmp_path / "device", keys, None)
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    with running(agent):
        expected = ["READY=1", "WATCHDOG=1", "STATUS=0 models answering, no broker"]
        assert expected == systemd.hear()
        assert ["WATCHDOG=1"] == systemd.hear()
        assert 0 == agent.command("install", str(bundle)).returncode
        systemd.hear_until("STATUS=1 model answering, no broker")
        systemd.hear_until("WATCHDOG=1")
        agent.process.terminate()
        systemd.hear_until("STOPPING=1")
        assert 0 == agent.process.wait(DEADLINE_S)
    assert 1 == systemd.lines.count("READY=1")


def test_without_systemd_the_agent_says_nothing(tmp_path, keys, monkeypatch):
    """No address, no module of ours in memory for it."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    code = (
        "import sys; from edgepack.agent.compose import Agent; "
        "print([name for name in sys.modules if 'systemd' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"NOTIFY_SOCKET": "/run/n"}, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1500000"}, 1.5),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "me"}, 1.0),
    ],
)
def test_what_systemd_puts_into_the_environment(environment, watchdog_s):
    """Another process's watchdog is not ours; nothing is left for children to inherit."""
    environment = {**environment, "PATH": "/bin"}
    if environment.get("WATCHDOG_PID") == "me":
        environment["WATCHDOG_PID"] = str(os.getpid())
    notifier = Notifier.of(environment)
    assert watchdog_s == notifier.watchdog_s
    assert {"PATH": "/bin"} == environment


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1"])
def test_an_address_that_is_no_unix_socket_is_no_systemd(address):
    """The agent runs as without systemd."""
    assert None is Notifier.of({"NOTIFY_SOCKET": address})


def test_an_abstract_address_is_reached(tmp_path):
    """Systemd in a container may use one."""
    address = f"@edgepack-test-{os.getpid()}-{tmp_path.name}"
    system = Systemd(address)
    assert Notifier(address).send("READY=1", "STATUS=ä")
    assert ["READY=1", "STATUS=ä"] == system.hear()
    system.close()


def test_nobody_listens(tmp_path, caplog):
    """It is logged once, and costs nothing else."""
    notifier = Notifier(str(tmp_path / "nobody"))
    assert [False, False] == [notifier.send("READY=1"), notifier.send("WATCHDOG=1")]
    assert 1 == len(caplog.records)


def test_requests_that_do_not_end_are_no_progress():
    """Time counts from the last request that ended; an idle agent is always well."""
    progress = Progress(stuck_s=10)
    looks = [(0, 0, 0), (2, 5, 100), (2, 5, 109), (2, 5, 110), (2, 6, 111), (0, 6, 500)]
    made = [progress.is_made(Work(running=r, finished=f), now_s=now) for r, f, now in looks]
    assert [True, True, True, False, True, True] == made


def test_a_stuck_agent_gives_no_sign_of_life(tmp_path, systemd):
    """It goes on telling its status, and systemd restarts it."""
    looks = iter(range(1000))

    async def watch() -> None:
        service = Service(
            Notifier(str(tmp_path / "notify"), watchdog_s=0.02),
            work=lambda: Work(running=1, finished=0),
            status=lambda: f"look {next(looks)}",
            progress=Progress(stuck_s=0),
        )
        running_service = asyncio.create_task(service.run())
        heard = [await asyncio.to_thread(systemd.hear) for _ in range(4)]
        running_service.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running_service
        assert ["READY=1", "WATCHDOG=1", "STATUS=look 0"] == heard[0]
        assert [["STATUS=look 1"], ["STATUS=look 2"], ["STATUS=look 3"]] == heard[1:]

    asyncio.run(watch())


def test_the_unit_is_right_and_tight(tmp_path):
    """Systemd finds no fault in it, and rates its exposure 1.7 of 10 or less."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        if os.environ.get("EDGEPACK_WITHOUT_SYSTEMD"):
            pytest.skip("systemd-analyze is not installed")
        pytest.fail("systemd-analyze is not installed: apt-get install systemd")
    program = tmp_path / "edgepack-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "edgepack-agent.service"
    unit.write_text(unit_text().replace("/opt/edgepack/current/bin/edgepack-agent", str(program)))
    verified = subprocess.run(
        [analyze, "verify", str(unit)], check=False, capture_output=True, text=True
    )
    assert (0, "") == (verified.returncode, verified.stderr)
    rated = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=17", "--no-pager", str(unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert 0 == rated.returncode, rated.stdout


def test_the_unit_comes_from_the_version_that_is_installed():
    """`python -m edgepack.agent.systemd.unit` prints it."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepack.agent.systemd.unit"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert unit_text() == done.stdout


def test_no_memory_that_is_writable_and_executable_is_needed(tmp_path, keys):
    """Install, self-test and answer work as the unit's MemoryDenyWriteExecute= has it."""
    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:  # PR_GET_MDWE
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    agent = AgentProcess(tmp_path / "device", keys, None)
    code = (
        "import ctypes, os, sys; "
        f"assert ctypes.CDLL(None).prctl({_PR_SET_MDWE}, 1, 0, 0, 0) == 0; "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    denied = [sys.executable, "-c", code, *AGENT]
    verb = ["install", "--config", str(agent.config), str(bundle)]
    done = subprocess.run([*denied, *verb], check=False, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    with agent.log.open("ab") as log:
        run = ["run", "--config", str(agent.config)]
        agent.process = subprocess.Popen([*denied, *run], stderr=log)
    try:
        wait_until(lambda: "confirmed" in agent.command("status").stdout, "confirmed")
    finally:
        assert 0 == agent.stop()
