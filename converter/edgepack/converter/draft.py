"""The contract while it grows: what is decided so far, and a model source for the runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Nonfinite,
    Parity,
    Task,
    TensorSpec,
    Tolerances,
    Variant,
)
from edgepack.converter.sources.source import ExportFacts
from edgepack.runtime.tensors import Array, datatype_of

GOLDEN_PATH = "golden.safetensors"
REFERENCE_PATH = "reference.json"
_NOT_MEASURED = Parity(rows=0, metric="none", value=0.0, bound=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One form of the model, not yet judged."""

    name: str
    precision: str
    data: bytes = field(repr=False)
    facts: ExportFacts

    @property
    def path(self) -> str:
        """Its file's path in the bundle."""
        return f"{self.name}/model.onnx"

    def without(self, output: str) -> "Candidate":
        """The same file with one output fewer bound."""
        kept = tuple(item for item in self.facts.outputs if item.name != output)
        return replace(self, facts=replace(self.facts, outputs=kept))

    def variant(self, parity: Parity = _NOT_MEASURED) -> Variant:
        """The candidate as the contract describes it."""
        summary = self.facts.summary
        return Variant(
            name=self.name,
            files=(self.path,),
            precision=self.precision,
            size_bytes=len(self.data),
            engine=EngineRequirements(
                engine="onnxruntime", opsets=summary.opsets, operators=summary.operators
            ),
            inputs=self.facts.inputs,
            outputs=self.facts.outputs,
            parity=parity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is decided of the contract before there is a variant."""

    name: str
    version: str
    task: Task
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    class_names: tuple[str, ...]
    tolerances: Tolerances

    def contract(self, variants: Sequence[Variant]) -> Contract:
        """The contract with these variants."""
        return Contract(
            name=self.name,
            version=self.version,
            task=self.task,
            inputs=self.inputs,
            outputs=self.outputs,
            class_names=self.class_names,
            tolerances=self.tolerances,
            variants=tuple(variants),
            golden=GOLDEN_PATH,
            reference=REFERENCE_PATH,
        )

    def with_nonfinite(self, nonfinite: Nonfinite) -> "Draft":
        """The draft with another rule for NaN in float inputs."""
        floats = (Datatype.FP32, Datatype.FP64, Datatype.FP16)
        return replace(
            self,
            inputs=tuple(
                replace(spec, nonfinite=nonfinite) if spec.datatype in floats else spec
                for spec in self.inputs
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySource:
    """One candidate as the runtime loads it, before there is a bundle."""

    contract: Contract
    files: Mapping[str, bytes] = field(repr=False)
    digest: str = "sha256:" + "0" * 64

    def read(self, path: str) -> bytes:
        """A file by its path in the bundle."""
        return self.files[path]


def output_specs(outputs: Mapping[str, Array], *, as_given: bool) -> tuple[TensorSpec, ...]:
    """Describe the original's outputs.

    Args:
        outputs: By contract name.
        as_given: Keep the floats' precision (a ready ONNX file); otherwise they become FP32.
    """
    specs = []
    for name, array in outputs.items():
        datatype = datatype_of(array)
        if datatype is None:
            raise TypeError(f"output {name!r} has dtype {array.dtype}, which has no datatype")
        if array.dtype.kind == "f" and not as_given:
            datatype = Datatype.FP32
        specs.append(TensorSpec(name=name, datatype=datatype, shape=(-1, *array.shape[1:])))
    return tuple(specs)
