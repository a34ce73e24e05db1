"""Starts, asks and ends the processes that candidates run in.

A subject is forked, not started anew: it shares what is imported already, so that it is there in
milliseconds and costs the device only what the candidate itself takes. The first subject of an
engine imports that engine's package by itself, so that one that does not even survive that takes
nothing with it; from the second on it is imported here and shared.

Only for a process that has no other threads and does nothing else.
"""

import gc
import json
import os
import select
import signal
import time
from typing import Any, Final

from edgepack.bundle import Bundle
from edgepack.runtime.contest import subject
from edgepack.runtime.contest.values import (
    Block,
    Candidate,
    Judged,
    Opened,
    Paced,
    Subject,
    SubjectError,
)
from edgepack.runtime.engines import engine_named
from edgepack.runtime.errors import TensorFileError
from edgepack.runtime.loading import choose_variant
from edgepack.runtime.memory import available_bytes, process_memory

_LOOK_EVERY_S: Final = 0.02
_ENDING_S: Final = 2.0
_ROOM_SHARE: Final = 0.5  # of the memory that is available
_GUARD_SHARE: Final = 0.8


class ForkedPlace:
    """Runs candidates of one bundle in processes of their own.

    Args:
        bundle: Of which candidates are.
        max_memory_bytes: Private memory that a candidate may take. It is ended when it takes
            twice that (the golden samples are answered as one batch, which serving does not do),
            or without a limit before it takes what the device has left.
    """

    def __init__(self, bundle: Bundle, *, max_memory_bytes: int | None = None) -> None:
        self._bundle = bundle
        self._max_memory_bytes = max_memory_bytes
        self._proven: set[str] = set()  # engines whose package a subject imported and survived
        self._alive: list[ForkedSubject] = []

    def start(self, candidate: Candidate, *, timeout_s: float) -> Subject:
        """Fork a process that loads the candidate.

        Raises:
            SubjectError: It cannot be loaded.
            TensorFileError: The golden samples are broken, whatever the candidate.
        """
        engine = choose_variant(self._bundle.contract, candidate.variant).engine.engine
        if engine in self._proven:
            engine_named(engine).prepare()
        self._alive = [other for other in self._alive if other.is_alive]
        started = self._fork(candidate)
        self._alive.append(started)
        started.open(timeout_s)
        self._proven.add(engine)
        return started

    def has_room(self, private_bytes: int) -> bool:
        """Whether it is less than half of what is available now."""
        available = available_bytes()
        return available is None or private_bytes < _ROOM_SHARE * available

    def close(self) -> None:
        """End all that still run."""
        for started in self._alive:
            started.close()

    def _guard_bytes(self) -> int | None:
        if self._max_memory_bytes is not None:
            return 2 * self._max_memory_bytes
        available = available_bytes()
        return None if available is None else int(_GUARD_SHARE * available)

    def _fork(self, candidate: Candidate) -> "ForkedSubject":
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        guard_bytes = self._guard_bytes()
        parent = os.getpid()

        def be_the_subject() -> None:
            for end in (commands_in, answers_out):
                os.close(end)
            for other in self._alive:
                other.let_go()
            subject.run(
                self._bundle,
                candidate,
                os.fdopen(commands_out, "rb"),
                os.fdopen(answers_in, "wb"),
                parent=parent,
                guard_bytes=guard_bytes,
            )

        gc.freeze()  # the child's collector need not touch, and so copy, what it shares
        pid = os.fork()
        if pid == 0:
            subject.run_forked(be_the_subject)
        gc.unfreeze()
        os.close(commands_out)
        os.close(answers_in)
        return ForkedSubject(pid, commands_in, answers_out, guard_bytes=guard_bytes)


class ForkedSubject:
    """The parent's end of one process; `ForkedPlace.start` makes it."""

    def __init__(self, pid: int, commands: int, answers: int, *, guard_bytes: int | None) -> None:
        self._pid = pid
        self._commands = commands
        self._answers = answers
        memory = process_memory(pid)
        self._most_private = None
        if guard_bytes is not None and memory is not None:
            self._most_private = memory.private + guard_bytes + subject.SLACK_BYTES
        self.is_alive = True
        self._opened: Opened | None = None

    @property
    def opened(self) -> Opened:
        """What loading took."""
        if self._opened is None:
            raise RuntimeError("the subject has not been opened")
        return self._opened

    def open(self, timeout_s: float) -> None:
        """Wait until the candidate is loaded."""
        found = self._wait(timeout_s)
        self._opened = Opened(
            load_ms=found["load_ms"],
            private_bytes=found["private_bytes"],
            peak_bytes=found["peak_bytes"],
        )

    def judge(self, *, timeout_s: float) -> Judged:
        """Answer the golden samples."""
        return Judged(**self._ask({"do": "judge"}, timeout_s))

    def block(self, calls: int, *, timeout_s: float) -> Block:
        """Time so many inferences."""
        return Block(**self._ask({"do": "block", "calls": calls}, timeout_s))

    def paced(self, calls: int, pause_s: float, *, timeout_s: float) -> Paced:
        """Infer with pauses."""
        return Paced(**self._ask({"do": "paced", "calls": calls, "pause_s": pause_s}, timeout_s))

    def close(self) -> None:
        """End the process at once."""
        if self.is_alive:
            self._kill()

    def let_go(self) -> None:
        """Close the pipes only: in another child, which inherited them."""
        os.close(self._commands)
        os.close(self._answers)

    def _ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if not self.is_alive:
            raise SubjectError("ended before")
        try:
            os.write(self._commands, json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise SubjectError(self._ended()) from None
        return self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                self._kill()
                raise SubjectError(f"hung: no answer within {timeout_s:.3g} s")
            ready, _, _ = select.select([self._answers], [], [], min(left, _LOOK_EVERY_S))
            if not ready:
                self._look_at_memory()
                continue
            piece = os.read(self._answers, subject.MAX_LINE_BYTES)
            if not piece or len(line) > subject.MAX_LINE_BYTES:
                raise SubjectError(self._ended())
            line += piece
        answer: dict[str, Any] = json.loads(line)
        if "done" in answer:
            done: dict[str, Any] = answer["done"]
            return done
        self._kill()
        if "broken" in answer:
            raise TensorFileError(answer["broken"])
        raise SubjectError(answer["error"])

    def _look_at_memory(self) -> None:
        if self._most_private is None:
            return
        memory = process_memory(self._pid)
        if memory is not None and memory.private > self._most_private:
            self._kill()
            raise SubjectError(f"took {memory.private / 1e6:.0f} MB of memory and was ended")

    def _kill(self) -> None:
        self._close_pipes()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _ended(self) -> str:
        """How the process ended that closed its pipe; it is killed if it does nothing more."""
        self._close_pipes()
        deadline = time.monotonic() + _ENDING_S
        while time.monotonic() < deadline:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                return how_it_ended(os.waitstatus_to_exitcode(status))
            time.sleep(_LOOK_EVERY_S)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return "closed its pipe and did not end"

    def _close_pipes(self) -> None:
        self.is_alive = False
        os.close(self._commands)
        os.close(self._answers)


def how_it_ended(code: int) -> str:
    """Say what an exit code tells: "crashed (SIGSEGV)"."""
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL): by the kernel when memory runs out, or by hand"
    if code < 0:
        try:
            return f"crashed ({signal.Signals(-code).name})"
        except ValueError:
            return f"crashed (signal {-code})"
    return f"ended by itself with exit code {code}"
