"""The steps of a contract's `pre`: how what callers give becomes what the model takes.

Values only. Reading them is `edgepack.bundle.pre_codec`, what a step does to a shape is
`edgepack.bundle.pre_shapes`, and doing it is `edgepack.runtime.preprocess`.
"""

from enum import StrEnum
from typing import Final, TypeAlias

from edgepack.bundle.contract import Datatype
from edgepack.trust.values import dataclass

FEATURE: Final = "pre"


class Layout(StrEnum):
    """Order of an image's dimensions: batch, height, width, channels."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class ResizeMethod(StrEnum):
    """How a pixel is made of its neighbours; all with half-pixel centres."""

    BILINEAR = "bilinear"
    NEAREST = "nearest"
    AREA = "area"  # the mean of what a pixel covers: for making images smaller


class Place(StrEnum):
    """Which part of a signal that is too long is kept, and where one that is too short lies."""

    START = "start"
    CENTER = "center"
    END = "end"


class MelScale(StrEnum):
    """Formulas from Hz to mel."""

    HTK = "htk"
    SLANEY = "slaney"


class Triangles(StrEnum):
    """On which axis a mel filter's sides are straight lines."""

    HZ = "hz"  # librosa, torchaudio
    MEL = "mel"  # HTK, TensorFlow


class Logarithm(StrEnum):
    """Which logarithm; db is 10 log10 of a power, 20 log10 of a magnitude."""

    LN = "ln"
    LOG10 = "log10"
    DB = "db"


class DctNorm(StrEnum):
    """Factors of a cosine transform: that of HTK has the first coefficient sqrt(2) larger."""

    ORTHO = "ortho"  # librosa, torchaudio
    HTK = "htk"  # HTK, TensorFlow


class MelNorm(StrEnum):
    """Whether filters have the height 1 or the area 1."""

    NONE = "none"
    SLANEY = "slaney"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """x * factor + offset, in float32 (float64 stays)."""

    input: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize:
    """(x - mean) / std, in float32 (float64 stays).

    Attributes:
        mean, std: One number, or one for each index of `axis`.
        axis: -1 is the last one; the batch is axis 0 and has none.
    """

    input: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    axis: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Another datatype: floats to whole numbers are rounded half to even, and saturate."""

    input: str
    datatype: Datatype


@dataclass(frozen=True, slots=True, kw_only=True)
class Transpose:
    """Other order of the dimensions; `axes` begins with 0, the batch."""

    input: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToLayout:
    """Images from the other layout to this one."""

    input: str
    to: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """Other dimensions of each sample, the batch left out; as many values."""

    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Images of another size. Whole numbers stay whole: rounded half to even.

    Attributes:
        height, width: In pixels.
        method: How.
        antialias: bilinear only: when an image gets smaller, look at all pixels that a new one
            covers, as Pillow and torchvision do; without it at four, as TensorFlow does.
        layout: Of the images.
    """

    input: str
    height: int
    width: int
    method: ResizeMethod = ResizeMethod.BILINEAR
    antialias: bool = False
    layout: Layout = Layout.NHWC


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """The middle of images; of an odd rest the larger half is cut off at the end."""

    input: str
    height: int
    width: int
    layout: Layout = Layout.NHWC


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Images in gray (1 channel) of colour (3), or the other way round.

    Gray is 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601); of bytes as Pillow computes it,
    in whole numbers: (19595 red + 38470 green + 7471 blue + 32768) div 65536.
    """

    input: str
    to: int
    layout: Layout = Layout.NHWC


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A signal (N, T) or (N, T, C), cut or filled up to a length, and cut into frames if wanted.

    Attributes:
        length: In samples.
        place: What is kept of a longer one, and where a shorter one lies.
        value: What it is filled up with.
        frame, hop: Length and distance of frames, in samples: (N, frames, frame[, C]). A rest
            that fills no frame is dropped.
    """

    input: str
    length: int
    place: Place = Place.START
    value: float = 0.0
    frame: int | None = None
    hop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMel:
    """The log-mel spectrogram (N, frames, mels) of a signal (N, T), float32.

    Attributes:
        rate: In samples a second.
        frame, hop: In samples; a rest that fills no frame is dropped.
        fft: Length of the transform, in samples; by default the next power of two.
        mels: Number of filters.
        low_hz, high_hz: Where the first begins and the last ends; by default 0 and rate / 2.
        scale: Formula from Hz to mel.
        triangles: On which axis the filters' sides are straight.
        norm: Their height 1 or their area 1.
        power: 2 for the power spectrum, 1 for the magnitude.
        floor, offset: The logarithm is of max(energy, floor) + offset.
        log: Which one.
    """

    input: str
    rate: int
    frame: int
    hop: int
    mels: int
    fft: int | None = None
    low_hz: float = 0.0
    high_hz: float | None = None
    scale: MelScale = MelScale.HTK
    triangles: Triangles = Triangles.HZ
    norm: MelNorm = MelNorm.NONE
    power: int = 2
    floor: float = 1e-10
    offset: float = 0.0
    log: Logarithm = Logarithm.LN

    @property
    def fft_length(self) -> int:
        """Length of the transform, in samples."""
        return self.fft if self.fft is not None else 1 << (self.frame - 1).bit_length()

    @property
    def top_hz(self) -> float:
        """Where the last filter ends."""
        return self.high_hz if self.high_hz is not None else self.rate / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dct:
    """The first coefficients of the cosine transform (type II) along the last axis.

    Of a log-mel spectrogram it gives the MFCC.

    Attributes:
        keep: How many.
        norm: Their factors.
    """

    input: str
    keep: int
    norm: DctNorm = DctNorm.ORTHO


Step: TypeAlias = (
    Scale
    | Normalize
    | Cast
    | Transpose
    | ToLayout
    | Reshape
    | Resize
    | CenterCrop
    | Channels
    | Window
    | LogMel
    | Dct
)
STEPS: Final[dict[str, type[Step]]] = {
    "scale": Scale,
    "normalize": Normalize,
    "cast": Cast,
    "transpose": Transpose,
    "layout": ToLayout,
    "reshape": Reshape,
    "resize": Resize,
    "center-crop": CenterCrop,
    "channels": Channels,
    "window": Window,
    "log-mel": LogMel,
    "dct": Dct,
}
_NAMES: Final = {kind: name for name, kind in STEPS.items()}


def name_of(step: Step) -> str:
    """The step's name in a document: "center-crop"."""
    return _NAMES[type(step)]
