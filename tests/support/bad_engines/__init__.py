"""Engines that do what no engine should, for the tests of containment.

`install()` lets `engine_named` find them beside the real ones, in the process that calls it.
"""

from pathlib import Path


def install() -> None:
    """Join this folder to `edgepack.runtime.engines`."""
    import edgepack.runtime.engines

    edgepack.runtime.engines.__path__.append(str(Path(__file__).parent))
