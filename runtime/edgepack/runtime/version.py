"""The version of an installed distribution, without importlib.metadata.

That brings in the email package and zipfile: a megabyte and a half of a device's memory for a name
that stands in the name of a folder.
"""

import re
import sys
from pathlib import Path


def version_of(distribution: str) -> str:
    """The version of an installed distribution.

    Args:
        distribution: Its name.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    name = re.sub(r"[-.]+", "_", distribution)  # as pip writes it: NAME-VERSION.dist-info
    for folder in sys.path:
        for found in Path(folder or ".").glob(f"{name}-*.dist-info"):
            return found.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    from importlib.metadata import version  # it was installed in some other way

    return version(distribution)
