"""Variants that crash, hang, lie or eat memory harm neither the others nor whoever asked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.contest_bundle import write_contest

QUICK = {"compare_s": 0.05}
TESTS = Path(__file__).parents[1]


def start(path: Path, **limits) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "support.contest_child", str(path), json.dumps(QUICK | limits)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def contest(path: Path, **limits) -> dict:
    process = start(path, **limits)
    out, err = process.communicate(timeout=120)
    assert 0 == process.returncode, err
    return json.loads(out)


def test_every_failure_is_contained_and_told(tmp_path):
    """The good variant is found behind ones that crash, end, raise, lie, or are not at home."""
    vices = ["segfault", "exit", "raise", "wrong", "missing", "chatty", "good"]
    report = contest(write_contest(tmp_path, vices))

    assert "good" == report["chosen"]["variant"]
    told = {name: report["tried"][name] for name in vices if name in report["tried"]}
    assert "crashed (SIGSEGV)" == told["segfault"]
    assert "ended by itself with exit code 3" == told["exit"]
    assert "the engine gave up" == told["raise"]
    assert "r2" in told["wrong"]
    assert "the rogue is not at home" == told["missing"]
    assert 2 == report["figures"]["variants_passed"]  # one that only talks too much is right
    assert len(vices) == report["figures"]["variants_tried"]


def test_one_that_hangs_costs_its_share_of_the_time_only(tmp_path):
    """The others are still tried, and everything ends in the time that was given."""
    started = time.monotonic()
    report = contest(write_contest(tmp_path, ["hang", "good"]), total_s=40.0, variant_s=2.0)

    assert "good" == report["chosen"]["variant"]
    assert report["tried"]["hang"].startswith("hung: no answer within")
    assert time.monotonic() - started < 40


def test_without_a_limit_for_a_variant_each_has_an_equal_share(tmp_path):
    """Three that hang leave the fourth its quarter."""
    vices = ["hang", "good"]
    report = contest(write_contest(tmp_path, vices), total_s=8.0)

    assert "good" == report["chosen"]["variant"]
    assert report["figures"]["self_test_s"] <= 8.0


def test_one_that_eats_memory_is_ended(tmp_path):
    """It is stopped at the limit, whether the kernel refuses or the parent sees it first."""
    report = contest(write_contest(tmp_path, ["hungry", "good"]), max_memory_bytes=64_000_000)

    assert "good" == report["chosen"]["variant"]
    assert "memory" in report["tried"]["hungry"]


def test_when_nothing_works_there_is_no_choice(tmp_path):
    """The report says of each what it did."""
    report = contest(write_contest(tmp_path, ["segfault", "raise"]))

    assert report["chosen"] is None
    assert {"segfault": "crashed (SIGSEGV)", "raise": "the engine gave up"} == report["tried"]


def test_a_variant_that_is_clearly_slower_is_not_chosen(tmp_path):
    """It is right, and let go after its first inferences."""
    report = contest(write_contest(tmp_path, ["slow", "good"]))

    assert "good" == report["chosen"]["variant"]
    assert report["tried"]["slow"].endswith("times slower")
    assert report["figures"]["p50_ms"] < 10


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"max_latency_ms": 5.0}, "the limit is 5 ms"),
        ({"max_memory_bytes": 1000}, "the limit is 0.0 MB"),
    ],
)
def test_limits_of_the_device_refuse_a_variant(tmp_path, limits, why):
    """It answers right and is refused all the same, with what it takes and what it may."""
    report = contest(write_contest(tmp_path, ["slow"]), **limits)

    assert report["chosen"] is None
    assert report["tried"]["slow"].endswith(why)


def test_a_contest_that_is_killed_leaves_nothing_running(tmp_path):
    """The processes of the candidates end with the one that started them."""
    process = start(write_contest(tmp_path, ["hang"]), total_s=60.0)
    deadline = time.monotonic() + 30
    children: list[int] = []
    while not children and time.monotonic() < deadline:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = [int(pid) for pid in found.split()]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    process.stdout.close()
    process.stderr.close()

    assert children
    while any(_runs(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [] == [pid for pid in children if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
