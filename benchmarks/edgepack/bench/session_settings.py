"""Why the session's defaults are what they are: latency and processor time by setting."""

from time import perf_counter_ns, process_time_ns, sleep
from typing import Final

from edgepack.bench.figure import Figure, Line
from edgepack.bench.workloads import Workload, digits_network, image_network
from edgepack.monitor.median import median
from edgepack.runtime import SessionOptions, load

_CALLS: Final = 200
_WARM_UP_CALLS: Final = 20
_PAUSE_S: Final = 0.005
_SETTINGS: Final = (
    ("the default: 1 thread", SessionOptions()),
    ("1 thread, no arena", SessionOptions(arena=False)),
    ("2 threads", SessionOptions(threads=2)),
    ("2 threads that spin", SessionOptions(threads=2, spinning=True)),
)


def measure() -> Figure:
    """Measure a model of microseconds and one of a millisecond under each setting."""
    lines: list[Line] = []
    workloads = (("digits network", digits_network()), ("image network", image_network()))
    _lines("not reported", workloads[0][1], SessionOptions())  # training leaves threads behind
    for what, workload in workloads:
        for setting, options in _SETTINGS:
            lines += _lines(f"{what}, {setting}", workload, options)
    return Figure(
        name="session_settings",
        title="Session settings: latency and processor time",
        method=(
            f"{_CALLS} predictions of one sample with {1e3 * _PAUSE_S:g} ms of sleep between them, "
            "as on a device that answers requests (caches and clocks are colder than in a tight "
            "loop). Processor time is of the whole process, pauses included, divided by the "
            "number of predictions: threads that spin use it while there is nothing to do."
        ),
        lines=tuple(lines),
    )


def _lines(what: str, workload: Workload, options: SessionOptions) -> list[Line]:
    taken_us = []
    with load(workload, options=options) as model:
        for _ in range(_WARM_UP_CALLS):
            model.predict(workload.inputs)
        used_ns = process_time_ns()
        for _ in range(_CALLS):
            started_ns = perf_counter_ns()
            model.predict(workload.inputs)
            taken_us.append((perf_counter_ns() - started_ns) / 1e3)
            sleep(_PAUSE_S)
        used_us = (process_time_ns() - used_ns) / _CALLS / 1e3
    found = median(taken_us)
    return [
        Line(what=f"{what}: latency", value=found.value, unit="µs", low=found.low, high=found.high),
        Line(what=f"{what}: processor time", value=used_us, unit="µs"),
    ]
