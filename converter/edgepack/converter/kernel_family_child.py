"""The program that `kernel_family` runs on an emulated processor: one question, one answer.

It imports as little as it can, for every import is emulated too.
"""

import os
import sys

import numpy as np

from edgepack.converter.errors import one_line
from edgepack.converter.worker_messages import FILE, Message, read_message, write_message
from edgepack.runtime.tensors import Array

_FATAL_ONLY = 4
_ROWS_AT_ONCE = 256


def answer(message: Message) -> Message:
    """Run the model that the message holds on the rows that it holds."""
    import onnxruntime

    feeds = dict(message.arrays)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        session = onnxruntime.InferenceSession(
            feeds.pop(FILE).tobytes(), options, providers=["CPUExecutionProvider"]
        )
        names = [item.name for item in session.get_outputs()]
        first = session.get_inputs()[0].shape
        size = first[0] if first and isinstance(first[0], int) else None
        pieces = [session.run(names, piece) for piece in _pieces(feeds, size)]
    except Exception as exc:  # noqa: BLE001  (onnxruntime's exceptions share no base class)
        return Message(kind="error", fields={"message": one_line(exc)})
    rows = next(iter(feeds.values())).shape[0]
    arrays = {
        name: np.concatenate(parts)[:rows]
        for name, parts in zip(names, zip(*pieces, strict=True), strict=True)
    }
    return Message(kind="run", arrays=arrays)


def _pieces(feeds: dict[str, Array], size: int | None) -> list[dict[str, Array]]:
    rows = next(iter(feeds.values())).shape[0]
    step = size or _ROWS_AT_ONCE
    pieces = []
    for begin in range(0, rows, step):
        piece = {name: array[begin : begin + step] for name, array in feeds.items()}
        missing = (size or 0) - next(iter(piece.values())).shape[0]
        if missing > 0:
            piece = {
                name: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)])
                for name, a in piece.items()
            }
        pieces.append(piece)
    return pieces


def main() -> int:
    """Answer the question on standard input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print; the answer's stream must stay ours
    message = read_message(sys.stdin.buffer)
    if message is None:
        return 1
    write_message(answers, answer(message))
    return 0


if __name__ == "__main__":
    sys.exit(main())
