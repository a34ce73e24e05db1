"""A ready TFLite file behind the `LoadedModel` Protocol: LiteRT gives the original's answers."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec
from edgepack.converter.batches import answer_in_batches
from edgepack.converter.errors import ModelFileError, UnfitDataError, UnsupportedModelError
from edgepack.converter.onnx_model.original import shaped_answer
from edgepack.converter.sources.source import (
    ArrayShape,
    Exported,
    ExportFacts,
    ExportWish,
    ModelFacts,
)
from edgepack.converter.tflite_graph import TfliteTensor, operator_name, read, summarise
from edgepack.converter.tflite_quantizer.run import TfliteRunner
from edgepack.runtime.affine import dequantize, quantize
from edgepack.runtime.dataset_inputs import made_up_names
from edgepack.runtime.engines import engine_named
from edgepack.runtime.tensors import DTYPES, Array
from edgepack.runtime.tflite_file import FileTensor, Graph

_INTEGERS = (Datatype.INT64, Datatype.INT32, Datatype.INT16, Datatype.INT8, Datatype.UINT8)
_FLOATS = (Datatype.FP32, Datatype.FP16, Datatype.FP64)
_MAX_MADE_UP_NAMES = 1024
_BATCH_ROWS = 64
_PASSES = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST")  # numbers go through unchanged


class TfliteModel:
    """A ready TFLite model.

    Quantized inputs and outputs are real numbers to callers, unless the data holds the file's own
    integers. A classifier's label is derived of its scores where the file has none.

    Args:
        data: The file.
        shapes: The data's arrays, in the order of the file's inputs.
    """

    def __init__(self, data: bytes, shapes: Sequence[ArrayShape] = ()) -> None:
        self._data = data
        self._summary = summarise(data)
        self._graph = read(data).graphs[0]
        try:
            self._runner = TfliteRunner(data)
        except UnsupportedModelError as exc:
            raise ModelFileError(f"LiteRT cannot load the file: {exc}") from exc
        names = _contract_names(self._runner.inputs, self._runner.outputs)
        self._inputs = {names[item.name]: item for item in self._runner.inputs}
        self._outputs = {names[item.name]: item for item in self._runner.outputs}
        given = [item.dtype for item in shapes]
        self._as_given = {
            name
            for (name, item), dtype in zip(self._inputs.items(), given, strict=False)
            if item.scale is not None and dtype == DTYPES[item.datatype].name
        }
        self.facts = self._facts()

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        tensors = self._tensors_for(task)
        feeds = {
            item.name: self._to_file(name, inputs[name]) for name, item in self._inputs.items()
        }
        rows = next(iter(feeds.values())).shape[0]
        batch = self._runner.batch
        found = answer_in_batches(
            self._runner.run,
            feeds,
            names=[item.name for item in self._runner.outputs],
            size=batch or _BATCH_ROWS,
            fixed=batch is not None,
        )
        raw = {item.name: array for item, array in zip(self._runner.outputs, found, strict=True)}
        return {
            name: shaped_answer(name, _answer(raw[item.name], item, derived), rows)
            for name, (item, derived) in tensors.items()
        }

    def export(self, wish: ExportWish) -> Exported:
        """The file itself; or ONNX of it, by tf2onnx: see `LoadedModel`."""
        tensors = self._tensors_for(wish.task)
        if wish.format == "onnx":
            from edgepack.converter.tflite_model.to_onnx import to_onnx

            chosen = {name: tensors[name] for name in wish.outputs}
            return to_onnx(
                self._data,
                inputs=[
                    _binding(name, item, as_given=name in self._as_given)
                    for name, item in self._inputs.items()
                ],
                outputs=[
                    _binding(name, item) for name, (item, derived) in chosen.items() if not derived
                ],
                label_of={name: item.name for name, (item, derived) in chosen.items() if derived},
            )
        if wish.precision != self.facts.precision:
            raise UnsupportedModelError(f"a TFLite file is what it is, and not {wish.precision}")
        return Exported(
            data=self._data,
            facts=ExportFacts(
                inputs=tuple(
                    _binding(name, item, as_given=name in self._as_given)
                    for name, item in self._inputs.items()
                ),
                outputs=tuple(
                    _binding(name, *tensors[name][:1], derived=tensors[name][1])
                    for name in wish.outputs
                ),
                summary=self._summary,
            ),
        )

    def _facts(self) -> ModelFacts:
        quantized = any(item.scale is not None for item in self._inputs.values())
        messages = []
        if quantized:
            held = "the file's own integers" if self._as_given else "real numbers"
            messages.append(f"the file's inputs are quantized; the data holds {held}")
        if _has_integers(self._graph):
            messages.append("the file is quantized already, and is packed as it is")
        return ModelFacts(
            framework="TFLite",
            description=f"graph of {len(self._graph.operators)} operators",
            task=self._task(),
            packages=engine_named("litert").versions(),
            messages=tuple(messages),
            inputs=tuple(self._input_spec(name) for name in self._inputs),
            outputs=tuple(
                TensorSpec(name=name, datatype=_real(item), shape=(-1, *item.shape[1:]))
                for name, item in self._outputs.items()
            ),
            formats=("tflite", "onnx"),
            precision=self._precision(),
        )

    def _precision(self) -> str:
        if not _has_integers(self._graph):
            return "fp32"
        made = {place for operator in self._graph.operators for place in operator.outputs}
        computed = any(_is_integer(self._graph.tensors[place]) for place in made)
        return "int8" if computed else "int8-weights"

    def _input_spec(self, name: str) -> TensorSpec:
        item = self._inputs[name]
        datatype = item.datatype if name in self._as_given else _real(item)
        columns = item.shape[1] if len(item.shape) == 2 else 0
        features: tuple[str, ...] = ()
        if 1 <= columns <= _MAX_MADE_UP_NAMES:
            features = (name,) if columns == 1 else made_up_names(name, columns)
        return TensorSpec(
            name=name, datatype=datatype, shape=(-1, *item.shape[1:]), feature_names=features
        )

    def _task(self) -> Task | None:
        """What the outputs alone tell; a lone matrix of floats may be logits or targets."""
        items = list(self._outputs.values())
        if len(items) <= 2 and any(_may_be_label(item) for item in items):
            return Task.CLASSIFICATION
        if len(items) != 1 or _real(items[0]) not in _FLOATS:
            return Task.GENERIC
        (only,) = items
        if _columns(only) > 1 and self._ends_in_softmax(only):
            return Task.CLASSIFICATION
        if _columns(only) == 1:
            return Task.REGRESSION
        return None if len(only.shape) == 2 else Task.GENERIC

    def _tensors_for(self, task: Task) -> dict[str, tuple[TfliteTensor, bool]]:
        """Contract name → tensor, and whether the output is the class of its largest value."""
        items = list(self._outputs.values())
        if task is Task.REGRESSION and len(items) == 1:
            return {"value": (items[0], False)}
        if task is not Task.CLASSIFICATION:
            return {name: (item, False) for name, item in self._outputs.items()}
        label = next((item for item in items if _may_be_label(item)), None)
        scores = next((item for item in items if _real(item) in _FLOATS), None)
        if label is None and (scores is None or _columns(scores) < 2):
            shown = ", ".join(f"{name!r} {_real(item)}" for name, item in self._outputs.items())
            raise UnsupportedModelError(
                f"a classifier must give one label a row, or scores as floats, got {shown}"
            )
        found = {}
        if label is not None:
            found["label"] = (label, False)
        elif scores is not None:
            found["label"] = (scores, True)
        if scores is not None:
            certain = self._ends_in_softmax(scores) or "prob" in scores.name.lower()
            found["probabilities" if certain else "scores"] = (scores, False)
        return found

    def _ends_in_softmax(self, item: TfliteTensor) -> bool:
        names = {self._graph.tensors[place].name: place for place in self._graph.outputs}
        makers = {place: op for op in self._graph.operators for place in op.outputs}
        operator = makers.get(names[item.name])
        while operator is not None and operator_name(operator) in _PASSES:
            operator = makers.get(operator.inputs[0])
        return operator is not None and operator_name(operator) == "SOFTMAX"

    def _to_file(self, name: str, array: Array) -> Array:
        item = self._inputs[name]
        if item.scale is None or name in self._as_given:
            return array.astype(DTYPES[item.datatype], copy=False)
        if np.isnan(array).any():
            raise UnfitDataError(
                f"input {name!r} takes NaN, which its quantized tensor cannot hold"
            )
        return quantize(array, item.scale, item.zero_point or 0, DTYPES[item.datatype])


def _binding(
    name: str, item: TfliteTensor, *, derived: bool = False, as_given: bool = False
) -> TensorBinding:
    plain = derived or as_given
    return TensorBinding(
        name=name,
        tensor=item.name,
        dtype=item.datatype,
        scale=None if plain else item.scale,
        zero_point=None if plain else item.zero_point,
        batch=item.batch,
        derive="argmax" if derived else None,
    )


def _answer(raw: Array, item: TfliteTensor, derived: bool) -> Array:
    if derived:
        found: Array = raw.argmax(axis=-1)
        return found
    if item.scale is not None:
        return dequantize(raw, item.scale, item.zero_point or 0)
    return raw


def _real(item: TfliteTensor) -> Datatype:
    """The datatype that callers see."""
    return item.datatype if item.scale is None else Datatype.FP32


def _may_be_label(item: TfliteTensor) -> bool:
    return item.scale is None and item.datatype in _INTEGERS and _columns(item) == 1


def _columns(item: TfliteTensor) -> int:
    return int(np.prod([abs(size) for size in item.shape[1:]], dtype=np.int64))


def _has_integers(graph: Graph) -> bool:
    return any(_is_integer(tensor) for tensor in graph.tensors)


def _is_integer(tensor: FileTensor) -> bool:
    integers = (Datatype.INT8, Datatype.UINT8, Datatype.INT16)
    return bool(tensor.scales) and tensor.datatype in integers


def _contract_names(*groups: Sequence[TfliteTensor]) -> dict[str, str]:
    """Tensor → a name for people: without what TensorFlow puts round it, if that stays unique."""
    found: dict[str, str] = {}
    for group in groups:
        short = [
            item.name.removeprefix("serving_default_").split(";", 1)[0].split(":", 1)[0]
            for item in group
        ]
        for item, name in zip(group, short, strict=True):
            unique = bool(name) and short.count(name) == 1
            found[item.name] = name if unique else item.name
    return found
