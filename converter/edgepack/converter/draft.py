"""The contract while it grows: what is decided so far, and a model source for the runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgepack.bundle.contract import (
    DERIVED_LABEL,
    PREPROCESSING,
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
from edgepack.converter.external_data import split, weights_name
from edgepack.converter.match import narrow
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.runtime.tensors import Array, datatype_of

GOLDEN_PATH = "golden.safetensors"
REFERENCE_PATH = "reference.json"
ENGINES = {"onnx": "onnxruntime", "tflite": "litert"}
_NOT_MEASURED = Parity(rows=0, metric="none", value=0.0, bound=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One form of the model, not yet judged.

    Attributes:
        name: "onnx-int8": the format, a dash, and what tells it from the others.
        precision: "fp32", "fp64", "fp16", "int8".
        exported: The model file, and what is known of it.
        weights: A second file with the large weights, or None where all are in the first.
    """

    name: str
    precision: str
    exported: Exported
    weights: bytes | None = field(default=None, repr=False)

    @property
    def format(self) -> str:
        """The file format: "onnx" or "tflite"."""
        return self.name.partition("-")[0]

    @property
    def data(self) -> bytes:
        """The model file."""
        return self.exported.data

    @property
    def facts(self) -> ExportFacts:
        """What is known of it."""
        return self.exported.facts

    @property
    def path(self) -> str:
        """Its file's path in the bundle."""
        return f"{self.name}/model.{self.format}"

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by their paths in the bundle, the model first."""
        files = {self.path: self.data}
        if self.weights is not None:
            files[f"{self.name}/{weights_name(self.weights)}"] = self.weights
        return files

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(map(len, self.files.values()))

    def without(self, output: str) -> "Candidate":
        """The same file with one output fewer bound."""
        kept = tuple(item for item in self.facts.outputs if item.name != output)
        facts = replace(self.facts, outputs=kept)
        return replace(self, exported=replace(self.exported, facts=facts))

    def with_weights_outside(self) -> "Candidate":
        """The same with large weights in a second file, which a device maps; for packing."""
        if self.format != "onnx" or self.weights is not None:
            return self
        model, weights = split(self.data)
        return replace(self, exported=replace(self.exported, data=model), weights=weights)

    def variant(self, parity: Parity = _NOT_MEASURED) -> Variant:
        """The candidate as the contract describes it."""
        summary = self.facts.summary
        return Variant(
            name=self.name,
            files=tuple(self.files),
            precision=self.precision,
            size_bytes=self.size_bytes,
            engine=EngineRequirements(
                engine=ENGINES[self.format], opsets=summary.opsets, operators=summary.operators
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
    pre: tuple[dict[str, object], ...] = ()

    def prepared(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What the model takes, of what callers give."""
        if not self.pre:
            return dict(arrays)
        from edgepack.runtime.preprocess import apply_steps, parse_steps

        return apply_steps(parse_steps(self.pre), narrow(self.inputs, arrays))

    @property
    def watched(self) -> tuple[TensorSpec, ...]:
        """The inputs that devices watch for drift: columns of one number at every call.

        Images and signals of any size have none that could be compared.
        """
        return tuple(spec for spec in self.inputs if -1 not in spec.shape[1:])

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
            reference=REFERENCE_PATH if self.watched else None,
            pre=self.pre,
            requires=_features(variants, self.pre),
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


def _features(variants: Sequence[Variant], pre: tuple[dict[str, object], ...]) -> tuple[str, ...]:
    """What a reader must know to use these variants."""
    derived = any(item.derive for variant in variants for item in variant.outputs)
    return ((DERIVED_LABEL,) if derived else ()) + ((PREPROCESSING,) if pre else ())


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
