"""The measurements of what a device chooses, on a model that costs nothing."""

import os
import subprocess
import sys

import pytest
from support.contest_bundle import write_contest

from edgepack.bench import install_memory, sensor_pace, variant_choice
from edgepack.bench.contest_process import choose
from edgepack.bench.errors import BenchError
from edgepack.bench.static_process import static_process
from edgepack.runtime import SessionOptions


def test_a_choice_is_made_in_a_process_of_its_own(tmp_path):
    """As on a device, with the time that it took."""
    choice = choose(write_contest(tmp_path, ["good", "goodtwin"]))

    assert choice.variant in ("good", "goodtwin")
    assert SessionOptions() == choice.options
    assert choice.seconds > 0


def test_a_bundle_of_which_nothing_runs_is_said(tmp_path):
    """With what each variant did."""
    with pytest.raises(BenchError, match="engine must be one of"):
        choose(write_contest(tmp_path, ["raise"]))


def test_rivals_are_all_other_variants_under_the_same_threads(tmp_path):
    """The chosen one is compared with everything that could have been chosen."""
    path = write_contest(tmp_path, ["good", "goodtwin"])
    choice = choose(path)
    regret = variant_choice._regret(path, choice)

    assert regret.low <= regret.value <= regret.high
    assert regret.value < 2


def test_a_static_configuration_tells_latency_and_processor_time(tmp_path):
    """The pauses cost hardly any."""
    path = write_contest(tmp_path, ["good"])
    with static_process(path, "good", SessionOptions(threads=2)) as process:
        assert 0 < process.time_us(20) < 1e5
        assert 0 < process.cpu_us(3, 0.01) < 1e5


def test_the_sweep_has_every_static_configuration_once(tmp_path):
    """The chosen one first; threads that spin only where there are some."""
    path = write_contest(tmp_path, ["good"])
    choice = choose(path)  # measured: which it is, another run may say otherwise
    swept = sensor_pace._sweep(path, choice)

    assert len(swept) == len(set(swept))
    assert choice.options == swept[0]
    assert not any(options.spinning and options.threads == 1 for options in swept)
    assert {1, len(os.sched_getaffinity(0))} <= {options.threads for options in swept}


def test_memory_of_a_tree_counts_children_and_shared_files_once():
    """Two processes of the same program cost less than twice one."""
    program = (
        "import sys; held = bytearray(b'x' * 30_000_000); print(1, flush=True); sys.stdin.read()"
    )
    alone = install_memory.tree_bytes(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        added = install_memory.tree_bytes(os.getpid()) - alone
        child.communicate()

    assert 30e6 < added < 60e6
