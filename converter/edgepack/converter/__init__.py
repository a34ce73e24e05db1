"""From a trained model and data to a signed bundle whose every variant was proven.

`convert` is the whole of it. Frameworks are imported in a child process only, and names are
imported when they are asked for: the child starts the sooner.
"""

from typing import TYPE_CHECKING

from edgepack.trust.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from edgepack.converter.conversion import convert
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
    from edgepack.converter.request import (
        ConvertRequest,
        Precision,
        Progress,
        ProgressCallback,
        Stage,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "conversion": ("convert",),
            "errors": (
                "ConvertError",
                "MissingPackageError",
                "ModelFileError",
                "OutputError",
                "RequestError",
                "ToleranceError",
                "UnfitDataError",
                "UnsafeModelError",
                "UnsupportedModelError",
                "WorkerError",
            ),
            "report": ("ConvertReport", "Rows", "VariantReport"),
            "request": ("ConvertRequest", "Precision", "Progress", "ProgressCallback", "Stage"),
        },
    )

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
