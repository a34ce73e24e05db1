"""The agent's side of a self-test: what a bundle's variants do to the device, and what is kept."""

import asyncio
from pathlib import Path

import pytest
from support.contest_bundle import write_contest
from support.large_weights import stored as put_into_store

from edgepack.agent.errors import RejectedError
from edgepack.agent.install.findings import Chosen
from edgepack.agent.install.journal import Stored
from edgepack.agent.install.worker import Worker
from edgepack.bundle import open_bundle
from edgepack.runtime import SessionOptions
from edgepack.runtime.contest.values import ContestLimits

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def rogues(monkeypatch):
    """Children of this process have engines that crash, hang and lie."""
    path = f"{SUPPORT / 'rogue_site'}:{SUPPORT.parent}"
    monkeypatch.setenv("PYTHONPATH", path)


def self_test(folder: Path, variants: list[str], **limits) -> Chosen:
    bundle = put_into_store(open_bundle(write_contest(folder, variants)), folder / "store")
    stored = Stored(
        digest=bundle.digest, name="contest", version="1.0.0", sequence=1, signatures=()
    )
    made = ContestLimits(**{"compare_s": 0.05, **limits})
    worker = Worker(folder / "root.json", folder / "roots", self_test_timeout_s=30.0, limits=made)
    return asyncio.run(worker.self_test(folder / "store", stored))


def test_a_variant_that_crashes_or_hangs_leaves_the_others(tmp_path, rogues):
    """The install goes on with the one that works, and tells of the rest."""
    chosen = self_test(tmp_path, ["segfault", "hang", "wrong", "good"], variant_s=2.0)

    assert ("good", SessionOptions()) == (chosen.variant, chosen.options)
    assert "; rogue 1" in chosen.fingerprint
    assert "segfault: crashed (SIGSEGV)" in chosen.failed
    assert any(line.startswith("hang: hung: no answer within") for line in chosen.failed)
    assert 64 == chosen.figures["rows"]
    assert 1 == chosen.figures["variants_passed"]


def test_where_nothing_works_the_bundle_is_rejected_with_the_reasons(tmp_path, rogues):
    """One line that says what each variant did."""
    with pytest.raises(RejectedError) as caught:
        self_test(tmp_path, ["segfault", "raise"])

    assert "self_test_failed" == caught.value.reason
    assert "segfault: crashed (SIGSEGV); raise: the engine gave up" == str(caught.value)


def test_a_device_may_demand_a_latency(tmp_path, rogues):
    """The model is right and too slow for what the device is for."""
    with pytest.raises(RejectedError, match="the limit is 5 ms") as caught:
        self_test(tmp_path, ["slow"], max_latency_ms=5.0)
    assert "self_test_failed" == caught.value.reason


def test_a_broken_golden_file_is_the_bundles_fault(tmp_path):
    """Whatever the variants do."""
    bundle = put_into_store(open_bundle(write_contest(tmp_path, ["good"])), tmp_path / "store")
    place = bundle.locate("golden.safetensors")
    place.chmod(0o644)
    place.write_bytes(b"x" * place.stat().st_size)
    stored = Stored(
        digest=bundle.digest, name="contest", version="1.0.0", sequence=1, signatures=()
    )
    worker = Worker(tmp_path / "root.json", tmp_path / "roots", self_test_timeout_s=30.0)
    with pytest.raises(RejectedError) as caught:
        asyncio.run(worker.self_test(tmp_path / "store", stored))
    assert "bundle_invalid" == caught.value.reason
