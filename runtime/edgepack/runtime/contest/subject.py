"""The process that runs one candidate: loads it, then does what it is told, one line at a time.

Commands and answers are JSON, one to a line. What the engine prints does not come between them.
"""

import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from statistics import median
from typing import Any, BinaryIO, Final

from edgepack.bundle import Bundle, BundleError
from edgepack.runtime.adapter import ordered
from edgepack.runtime.contest.values import Candidate
from edgepack.runtime.engines import engine_named
from edgepack.runtime.errors import InputError, TensorFileError, one_line
from edgepack.runtime.golden import Golden, parse_golden
from edgepack.runtime.loading import choose_variant, load
from edgepack.runtime.memory import die_first, process_memory, reset_peak
from edgepack.runtime.model import Model
from edgepack.runtime.selftest import judge, singles
from edgepack.trust.errors import EdgepackError

MAX_LINE_BYTES: Final = 64 * 1024
SLACK_BYTES: Final = 64 << 20  # stacks of threads, and what an engine's package takes
_FIRST_CALLS: Final = 3
_WARM_UP_CALLS: Final = 2
_SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


def run(
    bundle: Bundle,
    candidate: Candidate,
    commands: BinaryIO,
    answers: BinaryIO,
    *,
    parent: int,
    guard_bytes: int | None,
) -> None:
    """Be the subject until there are no more commands.

    Args:
        bundle: Its variant is tried.
        candidate: What to load, and how.
        commands: Lines come from here.
        answers: The first says what loading took; then one for each command.
        parent: Process id of who asks: when that ends, so does this.
        guard_bytes: Private memory that may be added before the kernel refuses.
    """
    _confine(parent, guard_bytes)
    try:
        subject = _Loaded(bundle, candidate)
        _answer(answers, {"done": subject.opened})
        for line in commands:
            command = json.loads(line)
            _answer(answers, {"done": subject.do(command)})
    except (BundleError, TensorFileError, InputError) as exc:  # the bundle contradicts itself
        _answer(answers, {"broken": str(exc)})
    except EdgepackError as exc:
        _answer(answers, {"error": str(exc)})
    except MemoryError as exc:
        _answer(answers, {"error": f"out of memory: {one_line(exc)}"})


def run_forked(work: Callable[[], None]) -> None:
    """Do the work and end this process, whatever happens; for the child of a fork."""
    code = 1
    try:
        work()
        code = 0
    except BrokenPipeError:  # whoever asked is gone
        pass
    except BaseException:  # noqa: BLE001  (a forked child must never return into its parent's code)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _Loaded:
    def __init__(self, bundle: Bundle, candidate: Candidate) -> None:
        contract = bundle.contract
        variant = ordered(contract, choose_variant(contract, candidate.variant))
        engine = engine_named(variant.engine.engine)
        engine.check(variant)
        engine.prepare()
        self._golden: Golden = parse_golden(bundle.read(contract.golden), contract)
        self._samples = singles(self._golden)
        self._next = 0
        reset_peak()
        before = process_memory()
        started = time.perf_counter_ns()
        self._model: Model = load(
            bundle, variant=candidate.variant, options=candidate.options, hash_mapped=False
        )
        load_ms = (time.perf_counter_ns() - started) / 1e6
        for _ in range(_FIRST_CALLS):
            self._call()
        after = process_memory()
        private = peak = 0
        if before is not None and after is not None:
            peak = max(0, after.peak - before.resident)
            private = max(0, peak - max(0, after.files - before.files))
        self.opened: dict[str, float] = {
            "load_ms": load_ms,
            "private_bytes": private,
            "peak_bytes": peak,
        }

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        kind = command["do"]
        if kind == "judge":
            verdict = judge(self._model, self._golden)
            figures = {k: v for k, v in verdict.figures.items() if math.isfinite(v)}
            return {"passed": verdict.passed, "reason": verdict.reason, "figures": figures}
        if kind == "block":
            return self._block(command["calls"])
        return self._paced(command["calls"], command["pause_s"])

    def _call(self) -> None:
        self._model.predict(self._samples[self._next])
        self._next = (self._next + 1) % len(self._samples)

    def _block(self, calls: int) -> dict[str, Any]:
        for _ in range(min(calls, _WARM_UP_CALLS)):
            self._call()
        taken = []
        for _ in range(calls):
            started = time.perf_counter_ns()
            self._call()
            taken.append((time.perf_counter_ns() - started) / 1e3)
        return {"median_us": median(taken), "fastest_us": min(taken), "calls": calls}

    def _paced(self, calls: int, pause_s: float) -> dict[str, Any]:
        time.sleep(pause_s)  # threads that still spin from before come to rest
        used = time.process_time_ns()
        for _ in range(calls):
            self._call()
            time.sleep(pause_s)
        return {"cpu_us": (time.process_time_ns() - used) / calls / 1e3, "calls": calls}


def _answer(answers: BinaryIO, answer: dict[str, Any]) -> None:
    line = json.dumps(answer).encode()[: MAX_LINE_BYTES - 1]
    answers.write(line + b"\n")
    answers.flush()


def _confine(parent: int, guard_bytes: int | None) -> None:
    """See to it that whatever the engine does harms nobody else."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # the parent's answer goes there
    os.close(null)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _die_with(parent)
    die_first()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = process_memory()
    if guard_bytes is not None and memory is not None:
        bound = memory.data + guard_bytes + SLACK_BYTES
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard == resource.RLIM_INFINITY or bound < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):  # another libc: then end of file tells
        pass
    if os.getppid() != parent:  # it was faster
        os._exit(1)
