"""The contract: what a model takes, what it gives, and in which forms it comes.

Values only. Reading and writing the bundle is `edgepack.bundle.archive`; running a model is
`edgepack.runtime`. A reader ignores keys that it does not know and refuses a `requires` entry
that it does not know, by its name.
"""

from dataclasses import field
from enum import StrEnum

from edgepack.trust.values import dataclass

FORMAT_MAJOR = 1
FORMAT = "1.0"
DERIVED_LABEL = "derived-label"  # a binding has `derive`
PREPROCESSING = "pre"  # callers give raw data, of which `pre` makes what the model takes
KNOWN_FEATURES: frozenset[str] = frozenset({DERIVED_LABEL, PREPROCESSING})


class Task(StrEnum):
    """What the model is for; it decides how parity and quality are judged."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    OUTLIER = "outlier"
    CLUSTERING = "clustering"
    TRANSFORM = "transform"
    GENERIC = "generic"  # tensors in, tensors out: judged by largest relative difference


class Nonfinite(StrEnum):
    """What the runtime does with NaN or infinity in a float input."""

    REJECT = "reject"
    NAN = "nan"  # NaN means "missing" and is passed on; infinity is still refused


class Datatype(StrEnum):
    """Open Inference Protocol datatypes; BYTES is a string."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: The name callers use.
        datatype: Open Inference Protocol datatype.
        shape: Sizes of the dimensions, -1 where free; the first is the batch.
        feature_names: One name for each column of the last dimension, or empty.
        unit: Unit of the values ("K", "rpm"), if one is known for all of them.
        minimum, maximum: Range of sane values, inclusive, if known. Information, not enforced.
        nonfinite: What happens to NaN and infinity (inputs only).
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    feature_names: tuple[str, ...] = ()
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    nonfinite: Nonfinite = Nonfinite.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How far a variant may be from the original model.

    Attributes:
        rtol, atol: For float variants: |got - expected| <= atol + rtol * |expected|.
        max_drop: For quantized variants: largest loss of the task's metric, as a fraction
            (0.01 = one point of accuracy, agreement, or R²).
    """

    rtol: float = 1e-4
    atol: float = 1e-5
    max_drop: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequirements:
    """What a device must have. Absent means no demand."""

    min_memory_bytes: int | None = None
    device_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBinding:
    """How one contract tensor is called in one variant's file.

    Attributes:
        name: The contract's name.
        tensor: The tensor's name in the model file.
        dtype: Open Inference Protocol datatype of that tensor in the file.
        scale, zero_point: Affine quantization of that tensor, real = (q - zero_point) * scale;
            absent for a float tensor.
        layout: Order of an image's dimensions in the file ("NHWC", "NCHW"), if it has one.
        batch: The fixed batch of the file, or None when it is free; the runtime loops.
        derive: "argmax": the output is no tensor of the file but the class of the largest value
            along the last axis of `tensor`, the first of equals: of `class_names` as values of the
            output's datatype where all of them are such, otherwise its index. Absent for a
            tensor of the file. A contract that uses it requires "derived-label".
    """

    name: str
    tensor: str
    dtype: Datatype
    scale: float | None = None
    zero_point: int | None = None
    layout: str | None = None
    batch: int | None = None
    derive: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequirements:
    """What a variant needs of its engine.

    Attributes:
        engine: "onnxruntime", "litert" or "tflite-runtime"; tflite-runtime answers for "litert"
            where only it is installed.
        opsets: ONNX: operator domain → opset version ("" is ONNX's default domain). TFLite:
            operator → its largest version in the file.
        operators: "domain::Operator" that the file uses, sorted; TFLite's are "tflite::CONV_2D".
    """

    engine: str
    opsets: dict[str, int] = field(default_factory=dict)
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How a variant compared with the original model, on rows that calibration never saw.

    Attributes:
        rows: Number of rows compared.
        metric: "within_tolerance" (float variants), "agreement", "r2", "max_rel_error".
        value: The metric of the variant against the original model's outputs.
        bound: The worst value that was accepted (a floor for agreement and r2, a ceiling for
            errors).
        figures: Everything else that was measured ("accuracy", "accuracy_original",
            "max_probability_difference", "r2_original", …).
    """

    rows: int
    metric: str
    value: float
    bound: float
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The model in one form.

    Attributes:
        name: "onnx-fp32", "onnx-int8", …
        files: Paths in the bundle, the model file first ("onnx-fp32/model.onnx").
        precision: "fp32", "fp64", "fp16", "int8".
        size_bytes: Sum of the files' sizes.
        engine: What it needs to run.
        inputs, outputs: One binding for each contract tensor.
        parity: Measured against the original model.
    """

    name: str
    files: tuple[str, ...]
    precision: str
    size_bytes: int
    engine: EngineRequirements
    inputs: tuple[TensorBinding, ...]
    outputs: tuple[TensorBinding, ...]
    parity: Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a bundle promises.

    Attributes:
        format: "major.minor" of this document; another major is refused.
        requires: Features that a reader must know: "derived-label" where a binding has `derive`,
            "pre" where there is `pre`.
        name: `[A-Za-z0-9_-]{1,64}`.
        version: SemVer, for people; devices go by digest and sequence.
        task: What it is for.
        inputs, outputs: At least one each, names unique. A classifier's outputs are "label"
            (N,) and, where it has them, "probabilities" (N, classes); a regressor's is "value".
        class_names: Names of the classes in the order of the probability columns.
        tolerances: Parity bounds.
        device: What a device must have.
        variants: In order of preference of the converter; a float variant is always among them.
        golden: Path of the golden samples in the bundle (safetensors).
        reference: Path of the drift reference in the bundle, owned by `edgepack.monitor`.
        pre: Steps from `inputs` to the tensors that variants bind, in their order, each on one
            input: {"step": "scale", "input": "image", "factor": 0.5}. See
            `edgepack.bundle.pre_steps`.
        post: Reserved.
        state: Reserved.
    """

    name: str
    version: str
    task: Task
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    golden: str
    format: str = FORMAT
    requires: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    tolerances: Tolerances = Tolerances()
    device: DeviceRequirements = DeviceRequirements()
    reference: str | None = None
    pre: tuple[dict[str, object], ...] = ()
    post: tuple[dict[str, object], ...] = ()
    state: dict[str, object] | None = None
