"""What the user's process says to its child, and what it believes of the answers."""

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from typing import BinaryIO

from edgepack.converter import errors
from edgepack.converter.child import Child
from edgepack.converter.errors import ConvertError, WorkerError
from edgepack.converter.worker_messages import Message, read_message, write_message

_logger = logging.getLogger(__name__)
_KEPT_STDERR_CHUNKS = 64
_CHUNK_BYTES = 1024
_POLL_S = 0.2


class WorkerProcess:
    """Questions and answers; the child must be running, and is not ended by this."""

    def __init__(self, child: Child) -> None:
        """Begin to listen to a child."""
        self._child = child
        self._limit_s = child.timeout_s
        self._deadline_s = time.monotonic() + self._limit_s
        self._listen()

    def _listen(self) -> None:
        self._process = self._child.process
        self._answers: queue.Queue[Message | WorkerError] = queue.Queue()
        self._stderr: deque[bytes] = deque(maxlen=_KEPT_STDERR_CHUNKS)
        self._child.has_readers = True
        readers = (
            (self._read_answers, (self._process, self._answers)),
            (_read_stderr, (self._process, self._stderr)),
        )
        for read, of in readers:
            threading.Thread(target=read, args=of, daemon=True).start()

    def restart(self) -> None:
        """Take a new child of the same kind for later questions; it knows nothing yet."""
        self._child.restart()
        self._listen()

    def ask(self, message: Message, *, limit_s: float | None = None) -> Message:
        """Send a message and wait for its answer: see `send` and `receive`."""
        self.send(message, limit_s=limit_s)
        return self.receive()

    def send(self, message: Message, *, limit_s: float | None = None) -> None:
        """Send a message; its answer comes with a later `receive`, in order.

        Args:
            message: The question.
            limit_s: When to give up, from now; by default the child's time for a question.

        Raises:
            WorkerError: The child is gone.
        """
        self._limit_s = self._child.timeout_s if limit_s is None else limit_s
        self._deadline_s = time.monotonic() + self._limit_s
        try:
            write_message(_stream(self._process.stdin), message)
        except OSError as exc:
            raise self._gone(self._process) from exc

    def receive(self) -> Message:
        """Wait for the next answer.

        Raises:
            ConvertError: What the child said went wrong, as the error that it named.
            WorkerError: It crashed, hung or sent nonsense.
        """
        while True:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                self._child.kill()
                raise WorkerError(
                    f"the model's process gave no answer within {self._limit_s:.3g} s and was "
                    "ended (a longer --timeout gives it more)"
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

    def _read_answers(
        self, process: "subprocess.Popen[bytes]", answers: "queue.Queue[Message | WorkerError]"
    ) -> None:
        with _stream(process.stdout) as stream:
            while True:
                try:
                    message = read_message(stream)
                except (WorkerError, OSError, ValueError) as exc:
                    answers.put(WorkerError(str(exc)))
                    return
                if message is None:
                    answers.put(self._gone(process))
                    return
                answers.put(message)

    def _log_stderr(self) -> None:
        text = b"".join(self._stderr).decode(errors="replace").strip()
        if text:
            _logger.debug("worker.stderr text=%s", text)

    def _gone(self, process: "subprocess.Popen[bytes]") -> WorkerError:
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return WorkerError("the model's process closed its output and was ended")
        self._log_stderr()
        return WorkerError(f"the model's process {_cause(code)}")


def _read_stderr(process: "subprocess.Popen[bytes]", kept: deque[bytes]) -> None:
    with _stream(process.stderr) as stream, contextlib.suppress(OSError, ValueError):
        while chunk := os.read(stream.fileno(), _CHUNK_BYTES):
            kept.append(chunk)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"was ended by signal {-code}"
    hints = {"SIGKILL": " (out of memory?)", "SIGXCPU": " (its limit of processor time)"}
    return f"was ended by {name}{hints.get(name, '')}"


def _named_error(answer: Message) -> ConvertError:
    """The error that the child named, if it is one of the package's; never anything else."""
    name, text = answer.fields.get("error"), str(answer.fields.get("message"))
    found = getattr(errors, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, ConvertError):
        return found(text)
    return WorkerError(text)


def _stream(stream: object) -> BinaryIO:
    if stream is None:
        raise WorkerError("the model's process has no such stream")
    return stream  # type: ignore[return-value]
