"""The seam between the conversion and whatever a model was made with.

A new source is one new file in this package with a module-level `SOURCE`, and its name in
`sources.find`. `recognise` runs in the user's process and must import nothing heavy; everything
else runs in a child process (`edgepack.converter.worker`), so that neither what a file makes a
library do nor its crash reaches the user's process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgepack.bundle.contract import Task, TensorBinding, TensorSpec
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a source tells about a model that it has loaded.

    Attributes:
        framework: "scikit-learn", "ONNX".
        description: What the model is, for a person: "Pipeline(StandardScaler, SVC)".
        task: What it is for, or None if only the data can tell.
        packages: Package → version, for the provenance: what ran the original model.
        messages: What a person should know, one line each.
        class_names: Names of the classes in the order of the probability columns.
        inputs: The inputs where the file itself fixes them (ONNX); empty where the data decides
            between one matrix and one input a column (scikit-learn).
        outputs: The outputs where the file itself fixes them.
        features: Number of columns that a tabular model takes, if it knows.
        feature_names: Their names in the model's order, or empty.
        text_features: Positions of the columns that the model takes as text.
        category_features: Positions of the columns whose categories the file keeps only as hashes:
            the data must show them.
        formats: Which the source exports itself; TFLite is otherwise written from ONNX.
        precision: "fp32", or what a ready file is: "fp16", "int8", "int8-dynamic" (activations are
            quantized while it runs), "int8-weights" (only they are stored so).
    """

    framework: str
    description: str
    packages: dict[str, str]
    task: Task | None = None
    messages: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    features: int | None = None
    feature_names: tuple[str, ...] = ()
    text_features: tuple[int, ...] = ()
    category_features: tuple[int, ...] = ()
    formats: tuple[str, ...] = ("onnx",)
    precision: str = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """What is in a model file, without the file.

    Attributes:
        opsets: ONNX: operator domain → version ("" is ONNX's own). TFLite: operator → version.
        operators: "domain::Operator" ("ai.onnx::Conv", "tflite::CONV_2D"), sorted, each once.
        weights: Number of constant weights of MatMul, Gemm and Conv and their like: what int8
            would shrink.
        ir_version: Of the file format.
    """

    opsets: dict[str, int]
    operators: tuple[str, ...]
    weights: int
    ir_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What is known of an exported file.

    Attributes:
        inputs, outputs: Contract name → tensor in the file.
        summary: What is in it.
        messages: What a person should know.
    """

    inputs: tuple[TensorBinding, ...]
    outputs: tuple[TensorBinding, ...]
    summary: FileSummary
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A model as one file of ONNX or TFLite, all weights inside, and what is known of it."""

    data: bytes = field(repr=False)
    facts: ExportFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryValues:
    """The categories that the data shows in a column, either as texts or as numbers."""

    column: int
    texts: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWish:
    """What is wanted of an export.

    Attributes:
        task: What the answers are for.
        inputs: The contract's inputs; a source with inputs of its own keeps them.
        outputs: Contract names of the outputs to keep.
        precision: "fp32" or "fp64".
        settle_ties: Make the label from probabilities of which those within 1e-6 count as equal.
        format: "onnx" or "tflite": one of the model's `ModelFacts.formats`.
        categories: Of `ModelFacts.category_features`.
    """

    task: Task
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    precision: str
    settle_ties: bool = False
    format: str = "onnx"
    categories: tuple[CategoryValues, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a user may say about a model file.

    Attributes:
        trust_pickle: Let the file run whatever code it holds.
        model_factory: "module:callable" that makes the model whose weights the file holds.
        input_shapes: Shapes given by hand, the first dimension being the batch, in the order of
            the model's inputs.
        data: Shape and dtype of the data's arrays in their order, as the model will get them
            ("float32", (500, 128, 9)); only for sources with `needs_data`.
    """

    trust_pickle: bool = False
    model_factory: str | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    data: tuple["ArrayShape", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayShape:
    """One array of the data, without its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class LoadedModel(Protocol):
    """A model in its own framework."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of it."""

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does.

        Args:
            task: What the answers are for.
            inputs: By contract name, at least one row; FP64 where the contract says FP32, if
                the framework computes in float64.

        Returns:
            By contract name: label and probabilities or scores, value.

        Raises:
            UnfitDataError: The model refuses these rows.
            UnsupportedModelError: The model has no answers of a kind that a device can give.
        """

    def export(self, wish: ExportWish) -> Exported:
        """Export to the format that is wished for.

        Raises:
            UnsupportedModelError: There is no way to.
        """


class Source(Protocol):
    """One framework or file format."""

    @property
    def name(self) -> str:
        """For messages: "scikit-learn"."""

    @property
    def extra(self) -> str:
        """What to install: `pip install 'edgepack[<extra>]'`."""

    @property
    def scratch_bytes(self) -> int:
        """The largest file that its child process may write into its scratch folder."""

    @property
    def needs_data(self) -> bool:
        """Whether the file alone does not tell the shapes of the inputs: then the data does."""

    def recognise(self, path: Path, head: bytes) -> str | None:
        """Tell what the file is, if it is one of this source's.

        Args:
            path: The file or folder.
            head: Its first bytes; empty for a folder.

        Returns:
            "scikit-learn model, joblib", or None.

        Raises:
            ModelFileError: It is one of this source's, and damaged.
        """

    def prepare(self) -> None:
        """Import what loading needs; called in the child process, before its limits hold.

        Raises:
            MissingPackageError: A package is not installed.
        """

    def load(self, path: Path, options: LoadOptions) -> LoadedModel:
        """Load the model; called in the child process, after `prepare`.

        Raises:
            ModelFileError: The file is damaged, or holds no model.
            UnsafeModelError: It asks for code that is not on the list.
            MissingPackageError: A package is not installed.
        """
