"""What is known of a TFLite file that a framework's converter made, by the contract's names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgepack.bundle.contract import TensorBinding
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tflite_graph import TfliteTensor, summarise, tensors_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """A float32 TFLite file that a framework's own converter made.

    Attributes:
        data: The file.
        inputs: Names of its input tensors, in the order of the ONNX file's inputs.
        outputs: Names of its output tensors, in the order of the ONNX file's outputs.
        messages: What a person should know of it.
    """

    data: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    messages: tuple[str, ...] = ()


def exported_tflite(
    file: TfliteFile,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    tensors: Mapping[str, str],
    wanted: Sequence[str],
) -> Exported:
    """The file with its tensors bound to a contract.

    Args:
        file: The file.
        inputs: The contract's names of its inputs.
        outputs: The ONNX file's names of its outputs.
        tensors: Contract name → ONNX output; a label that is none of them is derived of the
            scores.
        wanted: Contract names of the outputs to bind.

    Raises:
        UnsupportedModelError: The converter gave other tensors than the model has.
        ModelFileError: It wrote a damaged file.
    """
    taken, given = (_by_name(found) for found in tensors_of(file.data))
    made = dict(zip(outputs, file.outputs, strict=True))
    scores = next((made[tensor] for tensor in tensors.values() if tensor in made), None)
    bound = []
    for name in wanted:
        tensor = made.get(tensors[name])
        if tensor is not None:
            bound.append(_binding(name, given, tensor, None))
        elif scores is not None:  # the ONNX file has a node for it
            bound.append(_binding(name, given, scores, "argmax"))
    return Exported(
        data=file.data,
        facts=ExportFacts(
            inputs=tuple(
                _binding(name, taken, tensor, None)
                for name, tensor in zip(inputs, file.inputs, strict=True)
            ),
            outputs=tuple(bound),
            summary=summarise(file.data),
            messages=file.messages,
        ),
    )


def _by_name(tensors: Sequence[TfliteTensor]) -> dict[str, TfliteTensor]:
    return {tensor.name: tensor for tensor in tensors}


def _binding(
    name: str, found: Mapping[str, TfliteTensor], tensor: str, derive: str | None
) -> TensorBinding:
    if tensor not in found:
        raise UnsupportedModelError(f"the TFLite file has no tensor {tensor!r} for {name!r}")
    item = found[tensor]
    return TensorBinding(
        name=name,
        tensor=tensor,
        dtype=item.datatype,
        scale=item.scale,
        zero_point=item.zero_point,
        batch=item.batch,
        derive=derive,
    )
