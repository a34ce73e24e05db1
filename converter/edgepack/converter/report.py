"""What came of a conversion. Values only."""

from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.contract import Parity, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantReport:
    """One form of the model that was tried.

    Attributes:
        name: "onnx-fp32", "onnx-int8".
        precision: "fp32", "fp64", "int8".
        kept: Whether it is in the bundle.
        reason: One line: why it was left out, or what is worth knowing of it.
        size_bytes: Of its file; None if none was made.
        parity: How it compared with the original on held-out rows; None if it was not run.
    """

    name: str
    precision: str
    kept: bool
    reason: str | None = None
    size_bytes: int | None = None
    parity: Parity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the data's rows were used.

    Attributes:
        total: In the file.
        calibration: Only set the ranges of int8; never compared.
        held_out: Compared with the original.
        golden: Of those, packed for the self-test on the device.
    """

    total: int
    calibration: int
    held_out: int
    golden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """A finished conversion.

    Attributes:
        path: The bundle.
        name, version: Of the model.
        digest: Of the bundle, "sha256:…".
        size_bytes: Of the bundle's file.
        sequence: That it was signed with, in seconds since 1970.
        key_id: Of the key that signed it.
        keys: The folder of the keys if development keys were made for this conversion, else None.
        source: What the model file is: "joblib file: scikit-learn Pipeline(…)".
        task: What the model is for.
        rows: How the data was used.
        variants: Every form that was tried, kept or not.
        messages: What a person should know, one line each.
    """

    path: Path
    name: str
    version: str
    digest: str
    size_bytes: int
    sequence: int
    key_id: str
    keys: Path | None
    source: str
    task: Task
    rows: Rows
    variants: tuple[VariantReport, ...]
    messages: tuple[str, ...]
