"""A `systemctl` for a root without systemd: it knows one service and does what its unit says.

Starts `ExecStart` as `User`, waits for READY=1 as `Type=notify` has it, and writes down every call.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNIT = Path("/etc/systemd/system/edgepack-agent.service")
PID = Path("/run/edgepack-agent.pid")
CALLS = Path("/var/log/systemctl.calls")
LOG = Path("/var/log/edgepack-agent.log")
READY_S = 60.0


def setting(name: str) -> str:
    lines = [line.partition("=") for line in UNIT.read_text().splitlines()]
    return next(value for key, _, value in lines if key == name)


def alive() -> int | None:
    try:
        pid = int(PID.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else pid


def stop() -> None:
    pid = alive()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        while alive() is not None:
            time.sleep(0.02)
    PID.unlink(missing_ok=True)


def start() -> int:
    assert setting("Type") == "notify"
    address = f"/run/notify-{os.getpid()}"
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.bind(address)
    Path(address).chmod(0o666)
    door.settimeout(0.1)
    user, group = setting("User"), setting("Group")
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            [
                *("setpriv", "--reuid", user, "--regid", group, "--clear-groups"),
                *shlex.split(setting("ExecStart")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"},
        )
    PID.write_text(str(process.pid))
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if "READY=1" in door.recv(4096).decode().split("\n"):
                return 0
        except TimeoutError:
            continue
    return 1


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    with CALLS.open("a") as calls:
        calls.write(" ".join(words) + "\n")
    verb = words[0]
    if verb in ("stop", "restart"):
        stop()
    if verb in ("start", "restart") and alive() is None:
        return start()
    if verb == "is-active":
        return 0 if alive() is not None else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
