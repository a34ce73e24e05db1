"""The child process: `python -m edgepack.converter.worker SOURCE LIMITS`.

It holds the original model, which may be hostile: it runs under limits, its prints go to the
error stream, and it answers in `worker_messages`. It ends when its input does.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgepack.bundle.contract import Task
from edgepack.converter import errors
from edgepack.converter.child import TOOLS_ONLY
from edgepack.converter.limits import allow_time, apply_limits
from edgepack.converter.sources.find import source_named
from edgepack.converter.sources.source import (
    Exported,
    ExportFacts,
    ExportWish,
    LoadedModel,
    LoadOptions,
)
from edgepack.converter.tools.find import tool_named
from edgepack.converter.tools.tool import Quantization, ToolJob
from edgepack.converter.worker_messages import FILE, Message, read_message, write_message
from edgepack.converter.worker_values import from_fields, to_fields
from edgepack.trust.errors import EdgepackError

_UNEXPECTED = {
    "load": errors.ModelFileError,
    "run": errors.UnfitDataError,
    "export": errors.UnsupportedModelError,
    "tool": errors.UnsupportedModelError,
}


class Worker:
    """Answers messages; holds the model between them."""

    def __init__(self, source: str) -> None:
        self._source = None if source == TOOLS_ONLY else source_named(source)
        self._model: LoadedModel | None = None
        self._missing: errors.MissingPackageError | None = None
        self._answers: dict[str, Callable[[Message], Message]] = {
            "load": self._load,
            "run": self._run,
            "export": self._export,
            "tool": self._tool,
        }

    def prepare(self) -> None:
        """Import the source's framework; a missing package becomes the answer to "load"."""
        if self._source is None:
            return
        try:
            self._source.prepare()
        except errors.MissingPackageError as exc:
            self._missing = exc
        except Exception as exc:  # noqa: BLE001  (whatever a broken installation raises)
            traceback.print_exc()
            text = f"{self._source.name} cannot be imported: {errors.one_line(exc)}"
            self._missing = errors.MissingPackageError(text)

    def answer(self, message: Message) -> Message:
        """Do what a message asks; whatever goes wrong becomes an answer of kind "error"."""
        try:
            return self._answers[message.kind](message)
        except EdgepackError as exc:
            return _error(type(exc).__name__, str(exc))
        except MemoryError:
            return _error("WorkerError", "the model needs more memory than the limit allows")
        except Exception as exc:  # noqa: BLE001  (the supervisor of whatever a library raises)
            traceback.print_exc()
            known = _UNEXPECTED[message.kind]
            what = message.fields.get("tool", message.kind)
            text = f"{what} failed: {type(exc).__name__}: {errors.one_line(exc)}"
            return _error(known.__name__, text)

    def _load(self, message: Message) -> Message:
        if self._missing is not None:
            raise self._missing
        if self._source is None:
            raise errors.WorkerError("this process only uses tools")
        path = Path(str(message.fields["path"]))
        options = from_fields(LoadOptions, message.fields["options"])
        self._model = self._source.load(path, options)
        return Message(kind="load", fields=to_fields(self._model.facts))

    def _run(self, message: Message) -> Message:
        task = Task(str(message.fields["task"]))
        return Message(kind="run", arrays=self._loaded().run(task, message.arrays))

    def _export(self, message: Message) -> Message:
        exported = self._loaded().export(from_fields(ExportWish, message.fields))
        file = np.frombuffer(exported.data, dtype=np.uint8)
        return Message(kind="export", fields=to_fields(exported.facts), arrays={FILE: file})

    def _tool(self, message: Message) -> Message:
        arrays = dict(message.arrays)
        exported = Exported(
            data=arrays.pop(FILE).tobytes(),
            facts=from_fields(ExportFacts, message.fields["facts"]),
        )
        wish = message.fields["wish"]
        fields = message.fields["fields"]
        result = tool_named(str(message.fields["tool"]))(
            ToolJob(
                exported=exported,
                feeds=arrays,
                wish=None if wish is None else from_fields(Quantization, wish),
                fields=fields if isinstance(fields, dict) else {},
            )
        )
        if result.exported is None:
            return Message(kind="tool", fields={"facts": None, "fields": dict(result.fields)})
        return Message(
            kind="tool",
            fields={"facts": to_fields(result.exported.facts), "fields": dict(result.fields)},
            arrays={FILE: np.frombuffer(result.exported.data, dtype=np.uint8)},
        )

    def _loaded(self) -> LoadedModel:
        if self._model is None:
            raise errors.WorkerError("no model is loaded")
        return self._model


def serve(worker: Worker, requests: BinaryIO, answers: BinaryIO, *, cpu_s: int) -> None:
    """Answer messages until there are no more, each within `cpu_s` of processor time."""
    while (message := read_message(requests)) is not None:
        allow_time(cpu_s)
        write_message(answers, worker.answer(message))


def main() -> int:
    """Run the child process."""
    source, limits = sys.argv[1], json.loads(sys.argv[2])
    # Libraries print; the answers' stream must stay ours.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    worker = Worker(source)
    worker.prepare()  # before the limits: Python may still write its bytecode cache
    apply_limits(**limits)
    try:
        serve(worker, sys.stdin.buffer, answers, cpu_s=limits["cpu_s"])
    except BrokenPipeError:
        return 1
    return 0


def _error(kind: str, text: str) -> Message:
    return Message(kind="error", fields={"error": kind, "message": text})


if __name__ == "__main__":
    sys.exit(main())
