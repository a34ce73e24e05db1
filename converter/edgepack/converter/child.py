"""The child process as a process: started early, limited, and ended whatever happens.

Imports as little as it can: the child's own imports take most of a conversion's time, and every
millisecond before its start is added to them. What is said to it is `worker_process`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

TOOLS_ONLY = "-"  # instead of a source: a child that holds no model
_MEMORY_PART = 0.75
_LEAST_MEMORY_BYTES = 4 << 30


class Child:
    """A running child process, to be used in a `with` block.

    Args:
        source: Module of the source (`sources.find`), or TOOLS_ONLY.
        timeout_s: For each question, from when it is asked; also its limit of processor time.
        memory_bytes: Its limit of address space; None for three quarters of the machine's memory.
        file_bytes: Largest file that it may write.
        scratch: Folder for its temporary files; the caller removes it.
        own_code: Let it import modules from the current folder, as unpickling own classes
            and a model factory need.

    Attributes:
        process: The process, with pipes for input, output and errors.
        timeout_s: As given.
        has_readers: Whether threads read its output; they close it then.
    """

    def __init__(
        self,
        source: str,
        *,
        timeout_s: float,
        memory_bytes: int | None,
        file_bytes: int,
        scratch: str,
        own_code: bool = False,
    ) -> None:
        self.has_readers = False
        self.timeout_s = timeout_s
        limits = {
            "memory_bytes": memory_bytes or _default_memory_bytes(),
            "cpu_s": int(timeout_s * (os.cpu_count() or 1)) + 1,
            "file_bytes": file_bytes,
        }
        # -P: a file called joblib.py in the current folder must not be taken for the real one.
        safe_path = [] if own_code else ["-P"]
        worker = ["-m", "edgepack.converter.worker", source, json.dumps(limits)]
        self._command = [sys.executable, *safe_path, *worker]
        self._scratch = scratch
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            env=_environment(self._scratch),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def restart(self) -> None:
        """End the child and start another of the same kind, which knows nothing yet."""
        self._end()
        self.has_readers = False
        self.process = self._start()

    def _end(self) -> None:
        self.kill()
        streams = [self.process.stdin]
        if not self.has_readers:
            streams += [self.process.stdout, self.process.stderr]
        for stream in streams:
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def kill(self) -> None:
        """End the child and everything it started; doing so twice does no harm."""
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                if os.name == "posix":
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()
        self.process.wait()


def _default_memory_bytes() -> int:
    """Three quarters of the machine's memory, and at least 4 GiB of address space."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _LEAST_MEMORY_BYTES
    return max(int(installed * _MEMORY_PART), _LEAST_MEMORY_BYTES)


def _environment(scratch: str) -> dict[str, str]:
    # Sets of text are ordered by their hash: a fixed seed gives the same file every time.
    return {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": scratch,
        "ORT_DISABLE_TELEMETRY": "1",
    }
