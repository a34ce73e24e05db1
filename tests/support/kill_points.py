"""Every file operation and every journal statement of a process and its children, counted.

At a chosen number the device dies: the process that is about to do that operation and the agent
itself get SIGKILL, as if the operation before had been the last. Nothing is listed by hand: what
Python reports to its audit hooks, fsync, and whatever SQLite is told to execute.
"""

import mmap
import os
import signal
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Event → which of its arguments are paths. Renames and removals inside open folders have a
# relative path; nobody else does those here.
_EVENTS = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.chmod": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
}
_AGENT, _CHILD = 0, 1
_MARKS = 64  # where marks begin in the shared memory


class KillPoints:
    """Counters that a process shares with all that it forks.

    Args:
        state: Only what happens under this folder counts.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._prefix = f"{state}{os.sep}"
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._agent_pid = 0
        self._in_child = False
        self.names: list[str] = []

    @property
    def counts(self) -> tuple[int, int]:
        """Operations of the agent and of its children, so far."""
        agent, child = struct.unpack_from("qq", self._shared)
        return agent, child

    def watch(self, *, agent_stop: int = -1, child_stop: int = -1, together: bool = True) -> None:
        """Count from now on in this process, which is the agent; never to be undone.

        Args:
            agent_stop: The agent's operation, counted from 0, that is not done any more.
            child_stop: The same of a child.
            together: Whether the agent dies with a child of its.
        """
        self._agent_pid = os.getpid()
        self._stops = (agent_stop, child_stop)
        self._together = together
        fsync, fdatasync = os.fsync, os.fdatasync
        os.fsync = self._counted("fsync", fsync)  # type: ignore[assignment]
        os.fdatasync = self._counted("fdatasync", fdatasync)  # type: ignore[assignment]
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            made = connect(*arguments, **options)
            made.set_trace_callback(self._executed)
            return made

        sqlite3.connect = traced
        sys.addaudithook(self._hook)

    def mark(self, what: int) -> None:
        """Remember how many operations the agent did so far, under a small number."""
        agent = struct.unpack_from("qq", self._shared)[_AGENT]
        if not struct.unpack_from("q", self._shared, _MARKS + 8 * what)[0]:
            struct.pack_into("q", self._shared, _MARKS + 8 * what, agent + 1)

    def marked(self, what: int) -> int:
        """What `mark` remembered first; -1 where nothing was."""
        found: int = struct.unpack_from("q", self._shared, _MARKS + 8 * what)[0]
        return found - 1

    def child_started(self, module: str) -> None:
        """Count as a child from now on in this process; that it starts counts as well."""
        self._in_child = True
        self._reach(f"start {module}")

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: Any) -> Any:
            self._reach(name)
            return function(descriptor)

        return call

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _CHANGES and self._is_ours(path):
                self._reach(f"open {path}")
        elif any(self._is_ours(arguments[index]) for index in _EVENTS.get(event, ())):
            self._reach(f"{event} {arguments[0]}")

    def _executed(self, statement: str) -> None:
        if statement.strip() and not statement.startswith("SELECT"):
            self._reach(statement[:60])

    def _is_ours(self, path: Any) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return text.startswith(self._prefix) or (text != "" and not text.startswith("/"))

    def _reach(self, name: str) -> None:
        kind = _CHILD if self._in_child else _AGENT
        number = struct.unpack_from("qq", self._shared)[kind]
        struct.pack_into("q", self._shared, 8 * kind, number + 1)
        if number == self._stops[kind]:
            if self._in_child and self._together:
                os.kill(self._agent_pid, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)
