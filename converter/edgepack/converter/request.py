"""What is asked of a conversion, and what is reported while it runs. Values only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from edgepack.bundle.contract import Task, Tolerances

FORMATS = ("onnx", "tflite")


class Precision(StrEnum):
    """Which variants to try."""

    AUTO = "auto"  # whatever is smaller and good enough
    FP32 = "fp32"  # nothing else; it is always packed
    FP16 = "fp16"
    INT8 = "int8"  # static: calibrated on rows
    INT8_DYNAMIC = "int8-dynamic"


class Stage(StrEnum):
    """The stages of a conversion, in their order."""

    SOURCE = "source"
    EXPORT = "export"
    CALIBRATE = "calibrate"
    QUANTIZE = "quantize"
    PARITY = "parity"
    PACK = "pack"
    SIGN = "sign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A conversion has come to a stage.

    Attributes:
        stage: Which.
        step, steps: The stage's number, from 1, and how many there are.
        message: What it is doing, for a person.
    """

    stage: Stage
    step: int
    steps: int
    message: str


ProgressCallback = Callable[[Progress], None]
Teller = Callable[[Stage, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """A conversion. Only `model` and `data` are needed.

    Attributes:
        model: The model file.
        data: CSV, Parquet, npz, npy or safetensors; at least 64 real rows.
        label: Column or array of `data` with the true answers.
        output: Folder for the bundle; made if it is missing.
        name: Of the model, `[A-Za-z0-9_-]{1,64}`; by default from the model file's stem.
        version: SemVer; by default the next patch after the versions in `output`, or 0.1.0.
        task: What the model is for; by default the model and data tell.
        precision: Which variants to try, one or several; one that is named must be met. By
            default the recipe's, or AUTO.
        formats: "onnx", "tflite", or both; by default the recipe's, or both.
        recipe: TOML file that says what is not said here (docs/recipe.md).
        model_factory: "module:callable" that makes the model whose weights `model` holds.
        input_shapes: Shapes of the inputs, for model files that do not tell.
        cache: Folder of earlier answers; None keeps none.
        workers: How many candidates are tried at once; by default one a core.
        tolerances: How far a variant may be from the original; a recipe's own come before.
        max_drop: Instead of that of tolerances and recipe.
        key: Private release key; by default `release.key` in `keys`.
        keys: Folder of the keys; by default `$XDG_CONFIG_HOME/edgepack/keys`, where development
            keys are made if there are none. A folder that is named must hold its key.
        sequence: For the signature, in seconds since 1970; by default `SOURCE_DATE_EPOCH` or now.
        trust_pickle: Let the model file run whatever it asks for.
        overwrite: Replace a bundle of the same name and version.
        license_file: The model's licence, packed as LICENSE.
        command: The command line, for the provenance; absolute paths are cut to their last part.
        timeout_s: For each question to a child process, in seconds; a third of it for the export
            in a second format, which is left out rather than waited for.
        memory_bytes: Its limit of memory; by default three quarters of the machine's.
    """

    model: Path
    data: Path | None
    label: str | None = None
    output: Path = Path()
    name: str | None = None
    version: str | None = None
    task: Task | None = None
    precision: Precision | tuple[Precision, ...] | None = None
    formats: tuple[str, ...] = ()
    recipe: Path | None = None
    model_factory: str | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    cache: Path | None = None
    workers: int | None = None
    tolerances: Tolerances = field(default_factory=Tolerances)
    max_drop: float | None = None
    key: Path | None = None
    keys: Path | None = None
    sequence: int | None = None
    trust_pickle: bool = False
    overwrite: bool = False
    license_file: Path | None = None
    command: tuple[str, ...] = ()
    timeout_s: float = 900.0
    memory_bytes: int | None = None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What was asked for, as a tuple."""
        if self.precision is None:
            return (Precision.AUTO,)
        return (self.precision,) if isinstance(self.precision, Precision) else self.precision

    @property
    def wanted_formats(self) -> tuple[str, ...]:
        """The formats that were asked for, or all."""
        return self.formats or FORMATS

    @property
    def runs_own_code(self) -> bool:
        """Whether the model brings code that is not in its file: its answers are not cached."""
        return self.trust_pickle or self.model_factory is not None
