"""A contest on devices that are made up: what it starts, and what it chooses."""

import random
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from runtime_models import linear_bundle

from edgepack.bundle.contract import Contract
from edgepack.runtime import SessionOptions
from edgepack.runtime.contest.contest import Contest
from edgepack.runtime.contest.values import (
    Block,
    Candidate,
    ContestLimits,
    Judged,
    Opened,
    Paced,
    SubjectError,
)


@dataclass
class Device:
    """Latency of a candidate in µs, processor time, private memory; and who fails when."""

    latency_us: object
    cpu: object = lambda candidate: 1.0 * candidate.options.threads**0.5
    private_bytes: object = lambda candidate: 1000
    wrong: tuple[str, ...] = ()
    fails_at: dict[str, int] = field(default_factory=dict)  # calls until a variant crashes
    room: bool = True
    noise: float = 0.01
    takes_s: float = 0.0  # a start
    alive: int = 0
    most_alive: int = 0
    started: list[Candidate] = field(default_factory=list)
    source: random.Random = field(default_factory=lambda: random.Random(1))

    def start(self, candidate, *, timeout_s):
        if timeout_s <= 0:
            raise SubjectError("hung: no answer within 0 s")
        time.sleep(self.takes_s)
        self.started.append(candidate)
        self.alive += 1
        self.most_alive = max(self.alive, self.most_alive)
        return FakeSubject(self, candidate)

    def has_room(self, private_bytes):
        return self.room


class FakeSubject:
    def __init__(self, device, candidate):
        self._device, self._candidate = device, candidate
        taken = device.private_bytes(candidate)
        self.opened = Opened(load_ms=1.0, private_bytes=taken, peak_bytes=taken)

    def judge(self, *, timeout_s):
        passed = self._candidate.variant not in self._device.wrong
        return Judged(passed=passed, reason=None if passed else "wrong", figures={"rows": 64.0})

    def block(self, calls, *, timeout_s):
        device, variant = self._device, self._candidate.variant
        if variant in device.fails_at:
            device.fails_at[variant] -= 1
            if device.fails_at[variant] < 0:
                raise SubjectError("crashed (SIGSEGV)")
        true_us = device.latency_us(self._candidate)
        taken = [true_us * device.source.lognormvariate(0, device.noise) for _ in range(3)]
        return Block(median_us=sorted(taken)[1], fastest_us=min(taken), calls=calls)

    def paced(self, calls, pause_s, *, timeout_s):
        device = self._device
        cpu_us = device.latency_us(self._candidate) * device.cpu(self._candidate)
        return Paced(cpu_us=cpu_us, calls=calls)

    def close(self):
        self._device.alive -= 1


def contract(sizes: dict[str, int], *, files: int = 1) -> Contract:
    made = linear_bundle(np.eye(2, dtype=np.float32)).contract
    (base,) = made.variants
    names = tuple(f"onnx/{index}" for index in range(files))
    variants = [replace(base, name=n, size_bytes=s, files=names) for n, s in sizes.items()]
    return replace(made, variants=tuple(variants))


def run(device: Device, sizes: dict[str, int], *, processors=1, files=1, **limits):
    made = ContestLimits(**{"compare_s": 0.5, **limits})
    report = Contest(contract(sizes, files=files), device, made, processors=processors).run()
    assert 0 == device.alive
    return report


def by_variant(**latency_us: float):
    return lambda candidate: latency_us[candidate.variant]


SIZES = {"fp32": 400, "fp16": 200, "int8": 100}


def test_the_fastest_of_those_that_are_right_is_chosen():
    """Small and six times slower, or fast and wrong, does not help."""
    device = Device(by_variant(fp32=10.0, fp16=5.0, int8=60.0), wrong=("fp16",))
    report = run(device, SIZES)

    assert "fp32" == report.chosen.variant
    told = {item.candidate.label: item.result for item in report.tried}
    assert "wrong" == told["fp16"]
    assert told["int8"].endswith("times slower")
    assert 9.5 < report.figures["p50_ms"] * 1e3 < 10.5
    assert report.figures["p50_low_ms"] <= report.figures["p50_ms"] <= report.figures["p50_high_ms"]
    assert (3, 2) == (report.figures["variants_tried"], report.figures["variants_passed"])


def test_at_most_two_candidates_are_alive_at_once():
    """However many there are: memory for ten models is nobody's."""
    device = Device(by_variant(**{f"v{i}": 10.0 + 0.1 * i for i in range(10)}))
    run(device, {f"v{i}": 100 + i for i in range(10)})

    assert 2 == device.most_alive


def test_without_memory_for_two_they_are_compared_one_after_the_other():
    """Rougher, and told apart all the same."""
    device = Device(by_variant(fp32=10.0, fp16=8.0, int8=12.0), room=False)
    report = run(device, SIZES)

    assert ("fp16", 1) == (report.chosen.variant, device.most_alive)


def test_a_candidate_that_fails_later_leaves_the_place_to_the_others():
    """It passed its parity and crashes while it is timed."""
    for crashing, expected in (("fp16", "fp32"), ("fp32", "fp16")):
        device = Device(by_variant(fp32=10.0, fp16=9.0, int8=60.0), fails_at={crashing: 6})
        report = run(device, SIZES)
        told = {item.candidate.label: item.result for item in report.tried}

        assert expected == report.chosen.variant
        assert "crashed (SIGSEGV)" == told[crashing]


def with_threads(*times: float, variant: str = "fp32"):
    """Latency of 1, 2, 4 threads."""
    return lambda candidate: dict(zip((1, 2, 4), times, strict=False))[candidate.options.threads]


def test_more_threads_are_taken_where_they_are_faster_for_hardly_more_work():
    """Up to where the next ones no longer are."""
    device = Device(with_threads(4000.0, 2000.0, 2000.0), cpu=lambda c: 1.0 * c.options.threads)
    report = run(device, {"fp32": 1}, processors=4)

    assert SessionOptions(threads=2) == report.chosen.options
    assert 2.0 == report.figures["threads"]


def test_threads_that_only_burn_the_processor_are_not_taken():
    """Faster by a third for half as much work again: the device has other work."""
    device = Device(with_threads(900.0, 600.0), cpu=lambda c: {1: 1.0, 2: 2.25}[c.options.threads])
    report = run(device, {"fp32": 1}, processors=2)

    assert 1 == report.chosen.options.threads
    told = {item.candidate.label: item.result for item in report.tried}
    assert told["fp32 (2 threads)"].endswith("times faster for 1.50 times the processor time")


def test_a_limit_of_latency_is_worth_processor_time():
    """And a variant that cannot keep it even so is refused with its figures."""
    device = Device(
        with_threads(9000.0, 6000.0), cpu=lambda c: {1: 1.0, 2: 2.25}[c.options.threads]
    )
    assert 2 == run(device, {"fp32": 1}, processors=2, max_latency_ms=7.0).chosen.options.threads

    report = run(device, {"fp32": 1}, processors=2, max_latency_ms=2.0)
    assert report.chosen is None
    assert any(text.endswith("the limit is 2 ms") for text in report.failures)


def test_spinning_is_tried_only_where_nothing_else_keeps_the_limit():
    """It is off by default: it burns a processor."""
    device = Device(
        lambda c: 9000.0 / c.options.threads / (1.5 if c.options.spinning else 1.0),
        cpu=lambda c: 1.0 * c.options.threads * (6 if c.options.spinning else 1),
    )
    free = run(device, {"fp32": 1}, processors=2)
    bound = run(device, {"fp32": 1}, processors=2, max_latency_ms=3.5)

    assert (False, 2) == (free.chosen.options.spinning, free.chosen.options.threads)
    assert (True, 2) == (bound.chosen.options.spinning, bound.chosen.options.threads)


@pytest.mark.parametrize(("mapped_us", "expected"), [(1000.0, False), (1300.0, True)])
def test_weights_are_mapped_where_that_is_not_slower(mapped_us, expected):
    """A model whose weights lie apart is tried both ways."""
    device = Device(
        lambda c: 1000.0 if c.options.repack else mapped_us,
        private_bytes=lambda c: 100 << 20 if c.options.repack else 1 << 20,
    )
    report = run(device, {"fp32": 1}, files=2)

    assert expected == report.chosen.options.repack
    assert float(expected) == report.figures["repacked"]


def test_an_arena_that_costs_memory_and_no_time_is_left_out():
    """And kept where leaving it out is slower."""
    for slower, expected in ((1.0, False), (1.2, True)):
        device = Device(
            lambda c, slower=slower: 100.0 * (1 if c.options.arena else slower),
            private_bytes=lambda c: 50 << 20 if c.options.arena else 20 << 20,
        )
        assert expected == run(device, {"fp32": 1}).chosen.options.arena


def test_the_next_best_variant_is_taken_where_the_best_breaks_a_limit():
    """The fastest takes too much memory here."""
    device = Device(
        by_variant(fp32=10.0, int8=20.0),
        private_bytes=lambda c: {"fp32": 100 << 20, "int8": 10 << 20}[c.variant],
    )
    report = run(device, {"fp32": 400, "int8": 100}, max_memory_bytes=50 << 20)

    assert "int8" == report.chosen.variant


def test_when_the_time_is_up_the_rough_figures_decide():
    """Parity is never left out; the choice is rougher."""
    device = Device(by_variant(fp32=10.0, fp16=5.0, int8=60.0), takes_s=0.05)
    report = run(device, SIZES, total_s=0.17)

    assert "fp16" == report.chosen.variant
    assert 1 == device.most_alive


def test_the_choice_is_never_more_than_a_twentieth_slower_than_the_best():
    """On a noisy machine, for variants that lie near each other."""
    source = random.Random(7)
    for seed in range(15):
        true_us = {name: 100.0 * source.uniform(0.9, 1.3) for name in SIZES}
        device = Device(by_variant(**true_us), noise=0.05, source=random.Random(seed))
        chosen = run(device, SIZES).chosen.variant

        assert true_us[chosen] <= 1.05 * min(true_us.values())
