"""From a trained model and data to a signed bundle whose every variant was proven.

`convert` is the whole of it. Frameworks are imported in a child process only, so that importing
this package costs next to nothing.
"""

from edgepack.converter.convert import convert
from edgepack.converter.errors import (
    ConvertError,
    MissingPackageError,
    ModelFileError,
    OutputError,
    RequestError,
    ToleranceError,
    UnfitDataError,
    UnsafeModelError,
    UnsupportedModelError,
    WorkerError,
)
from edgepack.converter.report import ConvertReport, Rows, VariantReport
from edgepack.converter.request import ConvertRequest, Precision, Progress, ProgressCallback, Stage

__all__ = [
    "ConvertError",
    "ConvertReport",
    "ConvertRequest",
    "MissingPackageError",
    "ModelFileError",
    "OutputError",
    "Precision",
    "Progress",
    "ProgressCallback",
    "RequestError",
    "Rows",
    "Stage",
    "ToleranceError",
    "UnfitDataError",
    "UnsafeModelError",
    "UnsupportedModelError",
    "VariantReport",
    "WorkerError",
    "convert",
]
