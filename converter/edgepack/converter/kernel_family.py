"""What a model answers on a processor of another kernel family, by emulation.

onnxruntime multiplies 8-bit numbers with VNNI where the processor has it, and otherwise with
AVX2, whose 16-bit sums saturate: an int8 file may answer well here and wrongly there. A Haswell
of 2013 has AVX2 and no VNNI; qemu-user (Debian's package of that name) runs its instructions.
"""

import io
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import numpy as np

from edgepack.converter.errors import WorkerError
from edgepack.converter.worker_messages import FILE, Message, read_message, write_message
from edgepack.runtime.tensors import Array

EMULATOR: Final = "qemu-x86_64"
_PROCESSOR: Final = "Haswell"
_CHILD: Final = "edgepack.converter.kernel_family_child"
_KILL_AFTER_S: Final = 300.0


def why_not_here() -> str | None:
    """Why nothing can be emulated on this machine, or None if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"a {_PROCESSOR} is only emulated on Linux on x86-64"
    if shutil.which(EMULATOR) is None:
        return f"{EMULATOR} is not installed (Debian: apt-get install qemu-user)"
    return None


def answers_on_haswell(
    data: bytes, feeds: Mapping[str, Array], *, timeout_s: float = _KILL_AFTER_S
) -> dict[str, Array] | None:
    """An ONNX file's answers on a processor with AVX2 and without VNNI.

    It takes about 5 s and the model's time twenty times over: a few hundred rows are enough.

    Args:
        data: The file, with all its weights.
        feeds: Input → rows, with the file's types; more rows than a fixed batch are cut.
        timeout_s: When to give up.

    Returns:
        Output → answers, or None where nothing can be emulated: see `why_not_here`.

    Raises:
        WorkerError: The emulator failed or was too slow, or the engine refused the model.
    """
    if why_not_here() is not None:
        return None
    request = io.BytesIO()
    arrays = {**feeds, FILE: np.frombuffer(data, dtype=np.uint8)}
    write_message(request, Message(kind="run", arrays=arrays))
    command = [EMULATOR, "-cpu", _PROCESSOR, sys.executable, "-P", "-m", _CHILD]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            input=request.getvalue(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise WorkerError(f"the emulated {_PROCESSOR} gave no answer in {timeout_s:g} s") from exc
    except OSError as exc:
        raise WorkerError(f"{EMULATOR} cannot be started: {exc.strerror}") from exc
    answer = read_message(io.BytesIO(done.stdout)) if done.returncode == 0 else None
    if answer is None:
        raise WorkerError(f"the emulated {_PROCESSOR} ended with code {done.returncode}")
    if answer.kind == "error":
        raise WorkerError(f"on an emulated {_PROCESSOR}: {answer.fields.get('message')}")
    return dict(answer.arrays)
