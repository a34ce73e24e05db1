"""The seam between the search for variants and what is done to files. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgepack.converter.sources.source import Exported
from edgepack.runtime.tensors import Array
from edgepack.trust.strict_json import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """One way to make a model smaller; what a tool does not know it refuses.

    Attributes:
        scheme: "fp16", "dynamic" (activations quantized while it runs) or "static".
        activation, weight: "u8" or "s8".
        reduce_range: Weights of 7 bits, so that the 16-bit sums of AVX2 cannot saturate.
        per_channel: A scale for each output channel instead of one for the tensor.
        calibration: How ranges are found: "minmax", "entropy" or "percentile".
        keep_float: Layers to leave in float, by the names that `rank` gives.
    """

    scheme: str
    activation: str = "u8"
    weight: str = "s8"
    reduce_range: bool = False
    per_channel: bool = True
    calibration: str = "minmax"
    keep_float: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolJob:
    """What a tool works on.

    Attributes:
        exported: The file, and what is known of it.
        feeds: Tensor of the file → rows that calibration may see, (N, …), without NaN.
        wish: How to quantize, for tools that do.
        fields: Whatever else the tool takes.
    """

    exported: Exported
    feeds: Mapping[str, Array] = field(default_factory=dict)
    wish: Quantization | None = None
    fields: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolResult:
    """What came of it.

    Attributes:
        exported: The new file, if the tool makes one.
        fields: Whatever else it found, as JSON.
    """

    exported: Exported | None = None
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
