"""What a device would choose: `python -m edgepack.bench.contest_process BUNDLE`, in JSON.

A process of its own, as on a device: it forks, which one with threads must not.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepack.bench.errors import BenchError
from edgepack.runtime.options import SessionOptions

_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Variant and settings that a contest chose, and the seconds that it took."""

    variant: str
    options: SessionOptions
    seconds: float


def choose(bundle: Path) -> Choice:
    """Let a contest choose.

    Raises:
        BenchError: It chose nothing.
    """
    done = subprocess.run(
        [sys.executable, "-m", "edgepack.bench.contest_process", str(bundle)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise BenchError(f"contest must choose, got: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    return Choice(found["variant"], SessionOptions(**found["options"]), found["seconds"])


def main(arguments: list[str]) -> int:
    """Choose, and say what."""
    from edgepack.bundle import open_bundle
    from edgepack.runtime.contest.contest import run_contest
    from edgepack.runtime.contest.values import ContestLimits
    from edgepack.trust.decode import encode

    report = run_contest(open_bundle(arguments[0]), ContestLimits())
    if report.chosen is None:
        sys.stderr.write("; ".join(report.failures))
        return 1
    answer = {
        "variant": report.chosen.variant,
        "options": encode(report.chosen.options),
        "seconds": report.figures["self_test_s"],
    }
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
