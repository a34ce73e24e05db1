"""The figures that edgepack publishes about itself."""

import json
import platform
import time
from types import SimpleNamespace

import pytest

from edgepack.bench import describe_machine, figures, measurements, pairs
from edgepack.bench.figure import Figure, Line
from edgepack.bench.machine import peak_memory_bytes, resident_bytes
from edgepack.bench.monitor_cost import measure as measure_monitors
from edgepack.bench.predict_overhead import compare
from edgepack.bench.workloads import digits_pipeline, image_network
from edgepack.runtime import load


def figure(name="fake", value=1.0, limit=2.0) -> Figure:
    lines = (
        Line(what="bounded", value=value, unit="µs", low=0.5, high=1.5, limit=limit),
        Line(what="free", value=12345.6, unit="µs"),
    )
    return Figure(name=name, title="A title", method="How it was done.", lines=lines)


@pytest.fixture
def fakes(monkeypatch):
    """Two measurements that need no time; their values can be changed."""
    found = {"one": figure("one"), "two": figure("two")}
    monkeypatch.setattr(figures, "NAMES", tuple(found))
    monkeypatch.setattr(
        figures, "measurement", lambda name: SimpleNamespace(measure=lambda: found[name])
    )
    return found


def test_every_figure_is_written_with_its_machine(fakes, tmp_path, capsys):
    """A JSON file for each and a README of all; exit code 0 when every limit is kept."""
    assert 0 == figures.main(["--output", str(tmp_path)])

    document = json.loads((tmp_path / "two.json").read_text())
    assert document["kept"] is True
    assert {"cpu", "cores", "system", "python", "packages"} <= set(document["machine"])
    readme = (tmp_path / "README.md").read_text()
    assert 2 == readme.count("## A title")
    assert "| bounded | 1 [0.5, 1.5] µs | ≤ 2 µs, kept |" in readme
    assert "| free | 12346 µs |  |" in readme
    assert "bounded: 1 [0.5, 1.5] µs  (limit 2)" in capsys.readouterr().out


def test_a_figure_beyond_its_limit_is_said_and_ends_with_6(fakes, tmp_path, capsys):
    """The others are measured and written all the same."""
    fakes["one"] = figure("one", value=2.5)

    assert 6 == figures.main(["--output", str(tmp_path)])
    assert "MISSED" in capsys.readouterr().out
    assert "**missed**" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "two.json").exists()


def test_one_figure_can_be_measured_alone(fakes, tmp_path):
    """The README keeps what stands in the folder from before."""
    figures.main(["--output", str(tmp_path)])
    fakes["two"] = figure("two", value=1.25)
    (tmp_path / "one.json").read_text()
    figures.main(["two", "--output", str(tmp_path)])

    readme = (tmp_path / "README.md").read_text()
    assert 2 == readme.count("## A title")
    assert "1.25 [0.5, 1.5]" in readme


def test_an_unknown_figure_is_a_usage_error(capsys):
    """Exit code 2, with the names that there are."""
    with pytest.raises(SystemExit) as caught:
        figures.main(["nonsense"])

    assert caught.value.code == 2
    assert "predict_overhead" in capsys.readouterr().err


@pytest.mark.parametrize("name", measurements.NAMES)
def test_every_registered_measurement_has_its_module(name):
    """A name in the list is a module with `measure`."""
    assert callable(measurements.measurement(name).measure)


def test_an_unregistered_measurement_is_refused():
    """Whatever module there may be of that name."""
    with pytest.raises(ValueError, match="got 'pairs'"):
        measurements.measurement("pairs")


def test_pairs_see_which_way_is_slower():
    """A way that sleeps longer has a positive difference and a ratio above 1."""
    found = pairs.time_pairs(
        lambda: time.sleep(0.002), lambda: time.sleep(0.001), pairs=6, calls_per_block=1
    )

    assert found.difference_us.value > 500
    assert found.ratio.value > 1.3
    assert (6, 1) == (found.pairs, found.calls_per_block)


def test_the_machine_is_described_without_its_name():
    """Figures are published: no host name."""
    machine = describe_machine()

    assert machine.cores >= 1
    assert "numpy" in machine.packages
    assert platform.node() not in repr(machine) or len(platform.node()) < 4
    assert 1e6 < resident_bytes() <= peak_memory_bytes() + (1 << 20)


@pytest.mark.parametrize("make", [digits_pipeline, lambda: image_network(rounds=1)])
def test_workloads_answer_what_the_bare_session_answers(make):
    """What is compared for speed gives the same outputs."""
    import numpy as np
    import onnxruntime

    workload = make()
    bare = onnxruntime.InferenceSession(workload.model, providers=["CPUExecutionProvider"])
    expected = bare.run(None, workload.tensors)
    with load(workload) as model:
        for _ in range(4):
            answer = model.predict(workload.inputs)
            for first, second in zip(expected, answer.values(), strict=True):
                np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_predict_costs_at_most_3_microseconds_more_than_a_bare_run():
    """The promise of the runtime, with its checks; measured in turns in this process."""
    found = compare(digits_pipeline(), pairs=100, calls_per_block=200)

    assert found.difference_us.value <= 3.0


def test_recording_a_latency_costs_at_most_a_third_of_a_microsecond():
    """The promise of the monitors, as `make bench` measures it."""
    (record, _) = measure_monitors().lines

    assert record.limit == 0.3
    assert record.value <= 2 * record.limit  # a busy machine has room
