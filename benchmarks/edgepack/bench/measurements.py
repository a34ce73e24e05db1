"""What `make bench` measures, in this order. A new measurement is a module and a line here.

A measurement module has `measure() -> Figure`; its own name is the figure's name. It is imported
only when it is run, so that one without its extra does not stop the others.
"""

import importlib
from typing import Final

from edgepack.bench.figure import Measurement

NAMES: Final = (
    "predict_overhead",
    "session_settings",
    "mapped_weights",
    "slot_load",
    "variant_choice",
    "sensor_pace",
    "monitor_cost",
    "agent_footprint",
    "agent_footprint_tflite",
    "agent_traffic",
    "agent_soak",
    "http_serving",
    "http_beside_mlserver",
    "install_memory",
    "install_time",
    "conversion_time",
)


def measurement(name: str) -> Measurement:
    """Find a measurement's module.

    Raises:
        ValueError: There is none of that name.
        ImportError: A package that it needs is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"measurement must be one of {', '.join(NAMES)}, got {name[:80]!r}")
    module: Measurement = importlib.import_module(f"edgepack.bench.{name}")
    return module
