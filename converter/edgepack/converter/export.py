"""Asks the child process for the original's answers and for the model as ONNX."""

from collections.abc import Mapping
from pathlib import Path

from edgepack.bundle.contract import Task
from edgepack.converter.draft import Candidate
from edgepack.converter.sources.source import ExportFacts, ExportWish, LoadOptions, ModelFacts
from edgepack.converter.worker_messages import FILE, Message
from edgepack.converter.worker_process import WorkerProcess
from edgepack.converter.worker_values import from_fields, to_fields
from edgepack.runtime.tensors import Array
from edgepack.trust.strict_json import JsonValue


def send_load(worker: WorkerProcess, path: Path, options: LoadOptions) -> None:
    """Ask for the model to be loaded; `receive_facts` takes the answer."""
    fields: dict[str, JsonValue] = {"path": str(path.absolute()), "options": to_fields(options)}
    worker.send(Message(kind="load", fields=fields))


def receive_facts(worker: WorkerProcess) -> ModelFacts:
    """What the model is.

    Raises:
        ConvertError: It could not be loaded.
    """
    return from_fields(ModelFacts, worker.receive().fields)


def run_original(
    worker: WorkerProcess, task: Task, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """The original's answers.

    Raises:
        UnfitDataError: The model refuses the rows.
        ConvertError: The child failed.
    """
    answer = worker.ask(Message(kind="run", fields={"task": task.value}, arrays=inputs))
    return dict(answer.arrays)


def export(worker: WorkerProcess, wish: ExportWish) -> Candidate:
    """The model in the format that is wished for.

    Raises:
        UnsupportedModelError: It has no such form.
        ConvertError: The child failed.
    """
    answer = worker.ask(Message(kind="export", fields=to_fields(wish)))
    return Candidate(
        name=f"{wish.format}-{wish.precision}",
        precision=wish.precision,
        data=answer.arrays[FILE].tobytes(),
        facts=from_fields(ExportFacts, answer.fields),
    )
