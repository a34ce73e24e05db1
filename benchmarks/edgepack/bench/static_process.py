"""One variant under fixed settings, in a process of its own that does as it is told.

`python -m edgepack.bench.static_process BUNDLE VARIANT OPTIONS` loads it and then answers lines on
standard input: `time CALLS` with the median of so many predictions in µs, `pace CALLS PAUSE_S`
with the processor time of one prediction in µs, pauses included.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from edgepack.bench.errors import BenchError
from edgepack.bundle import open_bundle
from edgepack.runtime import SessionOptions, load, parse_golden
from edgepack.trust.decode import encode

_WARM_UP_CALLS: Final = 3
_TIMEOUT_S: Final = 30.0


class StaticProcess:
    """The parent's end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def time_us(self, calls: int) -> float:
        """Median of so many predictions, one after the other."""
        return self._ask(f"time {calls}")

    def cpu_us(self, calls: int, pause_s: float) -> float:
        """Processor time of the whole process for one prediction, at that pace."""
        return self._ask(f"pace {calls} {pause_s}")

    def _ask(self, line: str) -> float:
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("process must have pipes")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BenchError(f"process must answer {line!r}, got its end")
        return float(answer)


@contextlib.contextmanager
def static_process(bundle: Path, variant: str, options: SessionOptions) -> Iterator[StaticProcess]:
    """Start one."""
    command = [sys.executable, "-m", "edgepack.bench.static_process"]
    process = subprocess.Popen(
        [*command, str(bundle), variant, json.dumps(encode(options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        yield StaticProcess(process)
    finally:
        process.kill()
        process.wait(_TIMEOUT_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def main(arguments: list[str]) -> int:
    """Be the process."""
    path, variant, options = arguments
    bundle = open_bundle(path)
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    samples = [
        {name: array[row : row + 1] for name, array in golden.inputs.items()}
        for row in range(min(32, golden.rows))
    ]
    with load(bundle, variant=variant, options=SessionOptions(**json.loads(options))) as model:
        for _ in range(_WARM_UP_CALLS):
            model.predict(samples[0])
        for line in sys.stdin:
            what, calls, *pause = line.split()
            if what == "time":
                for _ in range(_WARM_UP_CALLS):
                    model.predict(samples[0])
                taken = []
                for call in range(int(calls)):
                    started = time.perf_counter_ns()
                    model.predict(samples[call % len(samples)])
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                answer = median(taken)
            else:
                time.sleep(float(pause[0]))
                used = time.process_time_ns()
                for call in range(int(calls)):
                    model.predict(samples[call % len(samples)])
                    time.sleep(float(pause[0]))
                answer = (time.process_time_ns() - used) / int(calls) / 1e3
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
