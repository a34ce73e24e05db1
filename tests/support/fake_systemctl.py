"""A `systemctl` that knows one service, the agent, and does with it what the unit says.

`ExecStartPre`, `ExecStart`, `Restart=always`, `RestartPreventExitStatus=2`. Called as
`fake_systemctl.py PREFIX WORDS…`; `supervise` is what `start` leaves running.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_RESTART_S = 0.1


def supervise(prefix: Path) -> None:
    """Run the agent again and again until SIGTERM."""
    base, config = prefix / "opt/edgepack", prefix / "etc/edgepack/agent.toml"
    child: list[subprocess.Popen[bytes]] = []
    stopping = False

    def stop(_number, _frame):
        nonlocal stopping
        stopping = True
        for process in child:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    while not stopping:
        if (base / "trying").is_symlink():
            command = [base / "trying/bin/edgepack-agent", "settle"]
            subprocess.run([*command, "--config", config, "--prefix", prefix], check=False)
        if stopping:
            break
        child[:] = [
            subprocess.Popen([base / "current/bin/edgepack-agent", "run", "--config", config])
        ]
        if child[0].wait() == 2:
            break
        time.sleep(_RESTART_S)


def running(pid_file: Path) -> int | None:
    """The supervisor, if it lives."""
    try:
        pid = int(pid_file.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else pid


def stop(pid_file: Path) -> None:
    """End the supervisor and its agent."""
    pid = running(pid_file)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        while running(pid_file) is not None:
            time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def start(prefix: Path, pid_file: Path) -> None:
    """Leave a supervisor running."""
    if running(pid_file) is not None:
        return
    with (prefix / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(prefix), "supervise"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    pid_file.write_text(str(process.pid))


def main() -> int:
    """One call of systemctl."""
    prefix, word = Path(sys.argv[1]), sys.argv[2]
    pid_file = prefix / "run/agent.pid"
    with (prefix / "run/calls").open("a") as calls:
        calls.write(" ".join(sys.argv[2:]) + "\n")
    if word == "supervise":
        supervise(prefix)
    if word in ("stop", "restart", "disable"):
        stop(pid_file)
    if word in ("start", "restart"):
        start(prefix, pid_file)
    if word == "is-active":
        return 0 if running(pid_file) is not None else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
