"""Processes made by fork: a warm copy takes milliseconds where a new Python takes half a second."""

import asyncio
import gc
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def in_fork(work: Callable[[], str]) -> tuple[int, str]:
    """Run `work` in a forked process; its exit status (negative: by that signal) and its answer.

    A process that raises ends with status 1 and answers with its traceback.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.disable()  # it would touch, and so copy, every page of this process
        os.close(reader)
        code = 1
        try:
            answer = work()
            code = 0
        except BaseException:
            answer = traceback.format_exc()
        with suppress(BaseException):
            os.write(writer, answer.encode()[-60_000:])
        os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), answer


class InlineProcess:
    """The same without any process: the module's `main` runs in this one."""

    returncode: int | None = None

    def __init__(self, module: str) -> None:
        self._module = module

    async def communicate(self, data: bytes) -> tuple[bytes, None]:
        kept = sys.stdin, sys.stdout
        sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(data)), io.StringIO()
        try:
            self.returncode = importlib.import_module(self._module).main()
            return sys.stdout.getvalue().encode(), None
        finally:
            sys.stdin, sys.stdout = kept


async def inline_exec(*command: str, **_: Any) -> InlineProcess:
    """Stands in for `asyncio.create_subprocess_exec` where `python -m MODULE` is started."""
    assert (sys.executable, "-m") == command[:2], command
    return InlineProcess(command[2])


class ForkedProcess:
    """What `asyncio.create_subprocess_exec` gives, as far as the agent's worker uses it."""

    def __init__(self, pid: int, to_child: int, from_child: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._to_child, self._from_child = to_child, from_child
        self._reaping = threading.Lock()

    async def communicate(self, data: bytes) -> tuple[bytes, None]:
        return await asyncio.to_thread(self._communicate, data), None

    async def wait(self) -> int:
        return await asyncio.to_thread(self._wait)

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _communicate(self, data: bytes) -> bytes:
        with suppress(BrokenPipeError), open(self._to_child, "wb") as pipe:
            pipe.write(data)
        with open(self._from_child, "rb") as pipe:
            out = pipe.read()
        self._wait()
        return out

    def _wait(self) -> int:
        with self._reaping:  # an install that is cancelled waits a second time, on another thread
            if self.returncode is None:
                _, status = os.waitpid(self.pid, 0)
                self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode


class ForkingExec:
    """The same with a process of its own.

    Args:
        started: Called in each new process before its `main`, with the module's name.
    """

    def __init__(self, started: Callable[[str], None] = lambda _: None) -> None:
        self._started = started

    async def __call__(self, *command: str, **_: Any) -> ForkedProcess:
        assert (sys.executable, "-m") == command[:2], command
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be(command[2], child_in, child_out)
        os.close(child_in)
        os.close(child_out)
        return ForkedProcess(pid, to_child, from_child)

    def _be(self, module: str, child_in: int, child_out: int) -> None:
        code = 1
        try:
            asyncio._set_running_loop(None)
            os.dup2(child_in, 0)
            os.dup2(child_out, 1)
            # All: who keeps the other end of its own standard input never reads to its end.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            self._started(module)
            code = importlib.import_module(module).main()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
