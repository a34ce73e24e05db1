"""The agent as a process and a service."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.wire.installation import UNIT_NAME

_TIMEOUT_S = 20.0
_MANY_RESTARTS = 5
_ASKED = ("ActiveState", "SubState", "UnitFileState", "NRestarts", "Result")


def check_process(patient: Patient) -> Iterator[Finding]:
    """Whether an agent runs and answers, and is of this installation."""
    if patient.silence:
        yield fail("agent", patient.silence, "call doctor as root; if it hangs, restart the agent")
    elif patient.answer is None:
        yield warn("agent", "none runs", f"systemctl start {UNIT_NAME}, or `edgepack-agent run`")
    else:
        agent = patient.answer.get("agent", {})
        yield ok("agent", f"runs (process {agent.get('pid')}, up {agent.get('uptime_s', 0):.0f} s)")
        release, here = agent.get("release", ""), _current(patient)
        if release and here and release != here:
            yield warn(
                "agent",
                f"release {release} runs, {here} is installed",
                f"systemctl restart {UNIT_NAME}",
            )


def check_service(patient: Patient) -> Iterator[Finding]:
    """The systemd unit, and an upgrade that is not decided."""
    installation = patient.installation
    if (installation.base / "upgrade.json").exists():
        yield warn(
            "upgrade",
            "one was interrupted",
            f"systemctl restart {UNIT_NAME} settles it; then call `edgepack-agent upgrade` again",
        )
    if not installation.unit.exists():
        yield ok("service", f"no {UNIT_NAME}: something else keeps the agent running")
        return
    booted = (installation.root / "run/systemd/system").is_dir()
    if not booted or shutil.which("systemctl") is None:
        yield warn(
            "service", f"{UNIT_NAME} is there, but systemd does not run here", "start it otherwise"
        )
        return
    from edgepack.agent.systemd.unit import unit_text

    if installation.unit.read_text(encoding="utf-8", errors="replace") != unit_text():
        yield warn(
            "service",
            f"{installation.unit} is not this version's",
            f"`{sys.executable} -m edgepack.agent.systemd.unit` prints that; changes of your own "
            f"belong into `systemctl edit {UNIT_NAME}`",
        )
    yield from _state()


def _state() -> Iterator[Finding]:
    try:
        done = subprocess.run(
            ["systemctl", "show", UNIT_NAME, f"--property={','.join(_ASKED)}"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield fail("service", "systemctl does not answer", "look at `journalctl -b`")
        return
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    state = f"{found.get('ActiveState', 'unknown')} ({found.get('SubState', '')})"
    log = "`journalctl -u edgepack-agent` says why"
    if found.get("ActiveState") != "active":
        why = f", {found['Result']}" if found.get("Result", "success") != "success" else ""
        yield fail("service", f"{state}{why}", f"systemctl start {UNIT_NAME}; {log}")
        return
    if found.get("UnitFileState") != "enabled":
        yield warn("service", f"{state}, not started at boot", f"systemctl enable {UNIT_NAME}")
    restarts = int(found.get("NRestarts") or 0)
    if restarts >= _MANY_RESTARTS:
        yield warn("service", f"{state}, restarted {restarts} times since boot", log)
    else:
        yield ok("service", state)


def _current(patient: Patient) -> str:
    try:
        return Path(patient.installation.current.readlink()).name
    except OSError:
        return ""
