"""A challenger's own process: whatever it does, the model beside it goes on answering.

The first line on standard input is the job; frames follow until the end of file. Every frame is
answered by one line of JSON. It runs at the lowest priority, with a bound on its memory, and it is
the first that the kernel ends when memory runs out.

The parent's side is `shadow.py`.
"""

import json
import os
import resource
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from edgepack.agent.serve.shadow_frames import MAX_LINE_BYTES, parse_frame, read_frame
from edgepack.monitor.disagreement import compare
from edgepack.runtime.memory import die_first, process_memory
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import EdgepackError

if TYPE_CHECKING:
    from edgepack.runtime import Model

_LOWEST_PRIORITY = 19


def main() -> int:
    """Answer frames until there are no more."""
    stream, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an engine prints is no answer
    job = json.loads(stream.readline(MAX_LINE_BYTES))
    _confine(job["memory_bytes"])
    try:
        model = _load(job)
    except (EdgepackError, MemoryError) as exc:
        _say(answers, {"error": str(exc) or "no memory"})
        return 0
    _say(answers, {"ready": True})
    while (data := read_frame(stream)) is not None:
        _say(answers, _answer(model, data))
    return 0


def _answer(model: "Model", data: bytes) -> dict[str, Any]:
    try:
        work = parse_frame(data)
        started = perf_counter_ns()
        outputs = model.predict(work.inputs)
        ns = perf_counter_ns() - started
        comparison = compare(work.outputs, outputs)
    except (EdgepackError, ValueError, MemoryError) as exc:
        return {"error": (str(exc) or type(exc).__name__)[:500]}
    memory = process_memory()
    return {
        "ns": ns,
        "comparison": encode(comparison),
        "memory_bytes": memory.resident if memory is not None else None,
    }


def _load(job: dict[str, Any]) -> "Model":
    from edgepack.bundle import open_layout
    from edgepack.runtime import load
    from edgepack.runtime.options import SessionOptions

    bundle = open_layout(
        Path(job["layout"]), job["digest"], signatures=tuple(job["signatures"]), hash_blobs=False
    )
    options = decode(SessionOptions, job["options"], what="options", ignore_unknown=True)
    return load(bundle, variant=job["variant"], options=options, hash_mapped=False)


def _confine(memory_bytes: int) -> None:
    os.nice(_LOWEST_PRIORITY)
    die_first()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = process_memory()
    if memory is not None:
        bound = memory.data + memory_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard == resource.RLIM_INFINITY or bound < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def _say(answers: Any, answer: dict[str, Any]) -> None:  # noqa: ANN401 (any binary stream)
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
