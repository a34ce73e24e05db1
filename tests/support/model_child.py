"""A source's child process that loads one model after another: its imports are paid for once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgepack.bundle.contract import Task
from edgepack.converter.child import Child
from edgepack.converter.search.cache import AnswerCache
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.sources.find import recognise, source_named
from edgepack.converter.sources.source import ExportWish, LoadOptions
from edgepack.converter.worker_process import WorkerProcess
from edgepack.runtime.tensors import DTYPES


class ModelChild:
    """Loads models in a child under the limits that a conversion gives it."""

    def __init__(self, child: Child) -> None:
        self._worker = WorkerProcess(child)

    def load(self, path: Path, **options: object) -> OriginalModel:
        """The model, loaded; raises what a conversion would."""
        found = LoadOptions(**options)
        cache = AnswerCache(None)
        model = OriginalModel(self._worker, path, found, cache=cache, context=())
        model.facts()
        return model


@contextmanager
def model_child(source: str, scratch: Path) -> Iterator[ModelChild]:
    """A child process of a source."""
    with Child(
        source,
        timeout_s=600,
        memory_bytes=None,
        file_bytes=source_named(source).scratch_bytes,
        scratch=str(scratch),
    ) as child:
        yield ModelChild(child)


def rows_for(model: OriginalModel, rows: int = 5) -> dict[str, np.ndarray]:
    """Made-up rows of a model's inputs."""
    rng = np.random.default_rng(0)
    found = {}
    for spec in model.facts().inputs:
        shape = (rows, *spec.shape[1:])
        whole = "INT" in spec.datatype.value
        made = rng.integers(0, 5, shape) if whole else rng.normal(size=shape)
        found[spec.name] = made.astype(DTYPES[spec.datatype])
    return found


def export(model: OriginalModel, task: Task, file_format: str) -> object:
    """The model's file in a format, with all its outputs."""
    outputs = tuple(model.run(task, rows_for(model)))
    return model.export(
        ExportWish(
            task=task,
            inputs=model.facts().inputs,
            outputs=outputs,
            precision="fp32",
            format=file_format,
        )
    ).exported


def answers(model: OriginalModel, task: Task, file_format: str, feeds: dict[str, np.ndarray]):
    """What the exported file answers, run by its engine alone; derived labels are left out."""
    file = export(model, task, file_format)
    run = _run_onnx if file_format == "onnx" else _run_tflite
    bindings = [binding for binding in file.facts.outputs if binding.derive is None]
    taken = {b.tensor: feeds[b.name] for b in file.facts.inputs}
    found = run(file.data, taken, [b.tensor for b in bindings])
    return {b.name: found[b.tensor] for b in bindings}


def _run_onnx(data: bytes, feeds: dict[str, np.ndarray], outputs: list[str]):
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))


def _run_tflite(data: bytes, feeds: dict[str, np.ndarray], outputs: list[str]):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    index = {item["name"]: item["index"] for item in details}
    types = {item["name"]: item["dtype"] for item in details}
    found = {name: [] for name in outputs}
    for row in range(len(next(iter(feeds.values())))):
        for name, array in feeds.items():
            interpreter.set_tensor(index[name], array[row : row + 1].astype(types[name]))
        interpreter.invoke()
        for name in outputs:
            found[name].append(interpreter.get_tensor(index[name])[0])
    return {name: np.stack(parts) for name, parts in found.items()}


def kind_of(path: Path) -> str:
    """What the file is recognised as."""
    return recognise(path).description
