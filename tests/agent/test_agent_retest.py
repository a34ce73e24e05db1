"""Another engine or another processor: what answers is tested again, and answers meanwhile."""

import asyncio
from dataclasses import replace

import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.findings import Chosen
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.retest import Retests
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import Phase
from edgepack.runtime import SessionOptions
from edgepack.runtime.fingerprint import fingerprint
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.messages import Release

A = "sha256:" + "a" * 64
OLD, NEW = "x86_64 onnxruntime 1.30", "x86_64 onnxruntime 1.31"
TESTED = Installed(
    release=Release(digest=A, version="1.0.0", sequence=1),
    variant="onnx-int8",
    fingerprint=OLD,
    self_test={"p50_ms": 1.0},
    proven=True,
)
CHOSEN = Chosen(
    variant="onnx-fp32",
    figures={"p50_ms": 0.5},
    failed=("onnx-int8: 2.00 times slower",),
    options=SessionOptions(threads=2),
    fingerprint=NEW,
)


class World:
    """A device with one confirmed model; worker and serving in one."""

    def __init__(self, folder):
        self.blobs = BlobStore(folder)
        self.journal = Journal(folder / "agent.db")
        self.journal.save_bundle(
            Stored(digest=A, name="m", version="1.0.0", sequence=1, signatures=())
        )
        self.slots = Slots(self.journal, self.blobs, self)
        self.told, self.served, self.notices, self.swaps = [], [], [], []
        self.slots.save(
            Slot(name="m", phase=Phase.CONFIRMED, target=A, active=TESTED, confirmed=TESTED)
        )
        self.told.clear()
        self.answer = CHOSEN
        self.during = lambda: None

    def slot_changed(self, slot):
        self.told.append(slot)

    async def self_test(self, layout, stored):
        assert A == stored.digest
        self.during()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def serve(self, slot, layout):
        self.served.append((slot.active.variant, slot.active.options.threads))

    def run(self, now=NEW):
        retests = Retests(
            self.slots,
            self.journal,
            self,
            self,
            self.blobs.layout,
            testing=asyncio.Lock(),
            fingerprint=lambda: now,
            swapped=self.swaps.append,
            notice=self.notices.append,
        )
        asyncio.run(retests.run())
        return self.slots["m"]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_another_engine_makes_another_choice(world):
    """The new variant answers, is remembered and told, and stays confirmed."""
    slot = world.run()

    assert [("onnx-fp32", 2)] == world.served
    assert (Phase.CONFIRMED, False) == (slot.phase, slot.is_unproven)
    assert (NEW, 0.5) == (slot.active.fingerprint, slot.active.self_test["p50_ms"])
    assert slot.active.proven
    assert Journal(world.journal._path).slots()["m"] == slot == world.told[-1]
    assert ["m"] == world.swaps
    assert [""] == world.notices


def test_the_same_circumstances_cost_nothing(world):
    """A restart as such is no reason for a test."""
    world.during = lambda: pytest.fail("it was tested")
    world.run(now=OLD)

    assert ([], []) == (world.served, world.told)


def test_the_same_choice_is_remembered_and_not_loaded_again(world):
    """The session that answers goes on."""
    world.answer = Chosen(variant="onnx-int8", figures={"p50_ms": 0.9}, failed=(), fingerprint=NEW)
    slot = world.run()

    assert [] == world.served
    assert (NEW, 0.9) == (slot.active.fingerprint, slot.active.self_test["p50_ms"])


def test_a_model_that_fails_goes_on_answering_and_is_told_of(world):
    """There is nothing better in its place; it is tried again at the next start."""
    world.answer = RejectedError("self_test_failed", "onnx-int8: 9 of 64 rows are outside")
    slot = world.run()

    assert ([], TESTED) == (world.served, slot.active)
    assert ["m: onnx-int8: 9 of 64 rows are outside"] == world.notices


def test_trouble_of_the_device_says_nothing_about_the_model(world):
    """A child that cannot be started is no failed test."""
    world.answer = StoreError("no memory")
    assert TESTED == world.run().active
    assert [""] == world.notices


def test_a_version_that_came_meanwhile_stays(world):
    """The test took minutes; its result is for a version that is no longer there."""
    newer = Installed(
        release=Release(digest="sha256:" + "b" * 64, version="2.0.0", sequence=2), variant="v"
    )
    world.during = lambda: world.slots.save(
        Slot(name="m", phase=Phase.PROBATION, target=newer.digest, active=newer, confirmed=TESTED)
    )
    slot = world.run()

    assert newer == slot.active
    assert [] == world.served


def test_a_version_that_is_confirmed_meanwhile_stays_so(world):
    """Its probation ended while it was tested again."""
    trying = replace(TESTED, proven=False)
    world.slots.save(Slot(name="m", phase=Phase.PROBATION, target=A, active=trying))
    world.during = lambda: world.slots.save(
        Slot(name="m", phase=Phase.CONFIRMED, target=A, active=TESTED, confirmed=TESTED)
    )
    slot = world.run()

    assert (False, True, NEW) == (slot.is_unproven, slot.active.proven, slot.active.fingerprint)


def test_a_probation_goes_on_as_one(world):
    """What is not proven yet is not proven by its test."""
    world.slots.save(Slot(name="m", phase=Phase.PROBATION, target=A, active=TESTED))
    slot = world.run()

    assert (Phase.PROBATION, True) == (slot.phase, slot.is_unproven)


def test_a_real_agent_tests_again_and_remembers(tmp_path):
    """It was last started under another engine: the file says so, and soon says otherwise."""
    keys = keygen(tmp_path / "keys")
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    agent = AgentProcess(tmp_path / "device", keys, None)
    assert 0 == agent.command("install", str(bundle)).returncode
    path = tmp_path / "device" / "state" / "agent.db"

    def installed() -> Installed:
        journal = Journal(path, read_only=True)
        try:
            return journal.slots()["tiny"].active
        finally:
            journal.close()

    here = installed().fingerprint
    assert fingerprint() == here
    journal = Journal(path)
    slot = journal.slots()["tiny"]
    journal.note_slot(replace(slot, active=replace(slot.active, fingerprint=OLD)))
    journal.close()
    with running(agent):
        try:
            wait_until(lambda: installed().fingerprint == here, "the second test")
            done = "retest.done model=tiny variant=onnx-fp32"
            wait_until(lambda: done in agent.text(), "its end in the log")
        except AssertionError as exc:
            raise AssertionError(f"{exc}; its log: {agent.text()[-2000:]}") from None


def test_what_is_being_installed_is_left_alone(world):
    """Its own test comes."""
    world.slots.save(Slot(name="m", phase=Phase.TESTING, target=A, active=TESTED, confirmed=TESTED))
    world.during = lambda: pytest.fail("it was tested")
    world.run()
