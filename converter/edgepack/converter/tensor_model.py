"""A model of a framework whose models take tensors and give tensors: PyTorch, Keras, TensorFlow.

The framework's own ONNX export tells names, shapes and the task, and becomes the ONNX file; the
framework itself gives the answers that everything is compared with. What loads a model, and what
makes its TFLite file, is the framework's module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from onnx import ModelProto

from edgepack.bundle.contract import Task
from edgepack.converter.batches import answer_in_batches
from edgepack.converter.errors import UnfitDataError, UnsupportedModelError, one_line
from edgepack.converter.onnx_model.original import OnnxModel, shaped_answer
from edgepack.converter.sources.source import Exported, ExportWish, ModelFacts
from edgepack.converter.tensor_tflite import TfliteFile, exported_tflite
from edgepack.runtime.tensors import Array
from edgepack.trust.errors import EdgepackError

__all__ = ["TensorModel", "TfliteFile"]

_BATCH_ROWS = 256  # memory for the layers between is taken for this many rows at once


class TensorModel:
    """Behind `LoadedModel`: the answers are the framework's, the files its own exports.

    Args:
        framework: "PyTorch".
        description: What the model is, for a person.
        packages: Package → version: what ran the original.
        onnx: The framework's export in float32, with all weights inside. The names of its inputs
            and outputs become the contract's; a classifier's label is the argmax of its scores.
        call: Gives the framework's answers: takes arrays (N, …) in the order of the ONNX file's
            inputs and of their types, gives one (N, …) for each of its outputs, in their order.
        to_tflite: Makes the TFLite file, if the framework can; raises UnsupportedModelError.
        messages: What a person should know, one line each.
    """

    def __init__(
        self,
        *,
        framework: str,
        description: str,
        packages: dict[str, str],
        onnx: ModelProto,
        call: Callable[[list[Array]], Sequence[Array]],
        to_tflite: Callable[[], TfliteFile] | None = None,
        messages: Sequence[str] = (),
    ) -> None:
        self._onnx = OnnxModel(onnx)
        self._call = call
        self._to_tflite = to_tflite
        known = self._onnx.facts
        self._inputs = [spec.name for spec in known.inputs]
        self._outputs = [spec.name for spec in known.outputs]
        self.facts: ModelFacts = replace(
            known,
            framework=framework,
            description=description,
            packages={**known.packages, **packages},
            messages=(*known.messages, *messages),
            formats=("onnx",) if to_tflite is None else ("onnx", "tflite"),
        )

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the framework does: see `LoadedModel`."""
        rows = next(iter(inputs.values())).shape[0]
        batch = self._onnx.batch
        found = answer_in_batches(
            self._answer,
            inputs,
            names=self._outputs,
            size=batch or _BATCH_ROWS,
            fixed=batch is not None,
        )
        answers = dict(zip(self._outputs, found, strict=True))
        tensors = self._onnx.tensors_for(task)
        named = {name: answers[tensor] for name, tensor in tensors.items() if tensor in answers}
        if "label" in tensors and "label" not in named:
            scores = next(iter(named.values()))
            named["label"] = scores.argmax(axis=1)
        return {name: shaped_answer(name, named[name], rows) for name in tensors}

    def export(self, wish: ExportWish) -> Exported:
        """The framework's own export in the format that is wished for: see `LoadedModel`."""
        if wish.format == "onnx":
            return self._onnx.export(wish)
        if wish.format != "tflite" or self._to_tflite is None:
            raise UnsupportedModelError(f"this model cannot be exported as {wish.format}")
        try:
            return exported_tflite(
                self._to_tflite(),
                inputs=self._inputs,
                outputs=self._outputs,
                tensors=self._onnx.tensors_for(wish.task),
                wanted=wish.outputs,
            )
        except UnsupportedModelError as exc:
            return self._written(wish, exc)

    def _written(self, wish: ExportWish, refusal: UnsupportedModelError) -> Exported:
        """The ONNX file as TFLite by our own writer, where the framework's converter refuses."""
        from edgepack.converter.tflite_writer.write import write_tflite

        try:
            return write_tflite(self._onnx.export(replace(wish, format="onnx")), {})
        except UnsupportedModelError as exc:
            raise UnsupportedModelError(f"{refusal}; from ONNX: {exc}") from exc

    def _answer(self, feeds: dict[str, Array]) -> list[Array]:
        try:
            answers = list(self._call([feeds[name] for name in self._inputs]))
        except EdgepackError:
            raise
        except Exception as exc:
            raise UnfitDataError(f"the model refuses the data: {one_line(exc)}") from exc
        if len(answers) != len(self._outputs):
            raise UnsupportedModelError(
                f"the model must give {len(self._outputs)} tensors as its export does, "
                f"got {len(answers)}"
            )
        return answers
