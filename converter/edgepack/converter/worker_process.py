"""The user's side of the child process: start, ask, wait, and end it whatever happens."""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import BinaryIO, Self

from edgepack.converter import errors
from edgepack.converter.errors import ConvertError, WorkerError
from edgepack.converter.worker_messages import Message, read_message, write_message

_logger = logging.getLogger(__name__)
_KEPT_STDERR_BYTES = 65_536
_POLL_S = 0.2
_MEMORY_PART = 0.75
_LEAST_MEMORY_BYTES = 4 << 30


class WorkerProcess:
    """A running child process, to be used in a `with` block.

    Args:
        source: Module of the source (`sources.find`).
        timeout_s: From its start, for everything it does; also its limit of processor time.
        memory_bytes: Its limit of address space.
        file_bytes: Largest file that it may write.
        scratch: Folder for its temporary files; the caller removes it.
        trust_pickle: Let it import modules from the current folder, as unpickling own classes
            needs.
    """

    def __init__(
        self,
        source: str,
        *,
        timeout_s: float,
        memory_bytes: int,
        file_bytes: int,
        scratch: str,
        trust_pickle: bool = False,
    ) -> None:
        self._deadline_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        limits = {
            "memory_bytes": memory_bytes,
            "cpu_s": int(timeout_s * (os.cpu_count() or 1)) + 1,
            "file_bytes": file_bytes,
        }
        # -P: a file called joblib.py in the current folder must not be taken for the real one.
        safe_path = [] if trust_pickle else ["-P"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                *safe_path,
                "-m",
                "edgepack.converter.worker",
                source,
                json.dumps(limits),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            env=_environment(scratch),
        )
        self._answers: queue.Queue[Message | WorkerError] = queue.Queue()
        self._stderr: deque[bytes] = deque(maxlen=_KEPT_STDERR_BYTES // 1024)
        self._threads = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def ask(self, message: Message) -> Message:
        """Send a message and wait for its answer: see `send` and `receive`."""
        self.send(message)
        return self.receive()

    def send(self, message: Message) -> None:
        """Send a message; its answer comes with a later `receive`, in order.

        Raises:
            WorkerError: The child is gone.
        """
        try:
            write_message(_stream(self._process.stdin), message)
        except OSError as exc:
            raise self._gone() from exc

    def receive(self) -> Message:
        """Wait for the next answer.

        Raises:
            ConvertError: What the child said went wrong, as the error that it named.
            WorkerError: It crashed, hung or sent nonsense.
        """
        while True:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                self.kill()
                raise WorkerError(
                    f"the model's process gave no answer within {self._timeout_s:g} s and was ended"
                )
            with contextlib.suppress(queue.Empty):
                # In short waits, so that Ctrl-C is answered on every system.
                answer = self._answers.get(timeout=min(_POLL_S, left_s))
                break
        if isinstance(answer, WorkerError):
            raise answer
        if answer.kind == "error":
            self._log_stderr()
            raise _named_error(answer)
        return answer

    def kill(self) -> None:
        """End the child and everything it started; doing so twice does no harm."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                _stream(stream).close()

    def _read_answers(self) -> None:
        stream = _stream(self._process.stdout)
        while True:
            try:
                message = read_message(stream)
            except (WorkerError, OSError, ValueError) as exc:
                self._answers.put(WorkerError(str(exc)))
                return
            if message is None:
                self._answers.put(self._gone())
                return
            self._answers.put(message)

    def _read_stderr(self) -> None:
        stream = _stream(self._process.stderr)
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stream.fileno(), 1024):
                self._stderr.append(chunk)

    def _log_stderr(self) -> None:
        text = b"".join(self._stderr).decode(errors="replace").strip()
        if text:
            _logger.debug("worker.stderr text=%s", text)

    def _gone(self) -> WorkerError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return WorkerError("the model's process closed its output and was ended")
        self._log_stderr()
        return WorkerError(f"the model's process {_cause(code)}")


def default_memory_bytes() -> int:
    """Three quarters of the machine's memory, and at least 4 GiB of address space."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _LEAST_MEMORY_BYTES
    return max(int(installed * _MEMORY_PART), _LEAST_MEMORY_BYTES)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    limited = {signal.SIGKILL: " (out of memory or time?)"}
    if hasattr(signal, "SIGXCPU"):
        limited[signal.SIGXCPU] = " (its limit of processor time)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}{limited.get(signal.Signals(-code), '')}"


def _named_error(answer: Message) -> ConvertError:
    """The error that the child named, if it is one of the package's; never anything else."""
    name, text = answer.fields.get("error"), str(answer.fields.get("message"))
    found = getattr(errors, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, ConvertError):
        return found(text)
    return WorkerError(text)


def _environment(scratch: str) -> dict[str, str]:
    # Sets of text are ordered by their hash: a fixed seed gives the same file every time.
    return {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": scratch,
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _stream(stream: object) -> BinaryIO:
    if stream is None:
        raise WorkerError("the model's process has no such stream")
    return stream  # type: ignore[return-value]
