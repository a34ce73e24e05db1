"""The installer with everything round it faked: what waits, what is tried again, what is judged."""

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import DecisionError, FetchError, RejectedError, StoreError
from edgepack.agent.install import retries
from edgepack.agent.install.apply import Installer
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.fetch import Fetched
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.judge import Figures
from edgepack.agent.install.slot import Installed, Slot, shadow_key
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import Phase
from edgepack.agent.install.worker import Chosen, Verified
from edgepack.wire.desired import Audience, Desired, DesiredModel, Mode
from edgepack.wire.messages import Release

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
PROBATION = ProbationConfig(requests=2, seconds=60, max_error_rate=0.01)


def model(digest, name="m", **fields):
    return DesiredModel(name=name, version="1.0.0", digest=digest, sources=("mqtt:",), **fields)


def desired(generation, *models):
    return Desired(
        audience=Audience(prefix="p", device="d"),
        generation=generation,
        issued_s=0,
        expires_s=int(time.time()) + 1000,
        models=models,
    )


class Answers:
    """Counters of a model that answers."""

    def __init__(self):
        self.now = Figures()
        self.event = asyncio.Event()

    def count(self, requests, failures):
        self.now = Figures(requests=requests, failures=failures)
        self.event.set()

    def figures(self):
        return self.now

    async def changed(self):
        await self.event.wait()
        self.event.clear()


class Challengers:
    """Remembers which challengers run; `fails` names those that do not load."""

    def __init__(self, world):
        self.world = world

    async def cast(self, slot):
        if slot.active.digest in self.world.misfits:
            raise RejectedError("shadow_failed", "it does not load")
        self.world.shadows[slot.name] = slot.active.digest

    def stop(self, name):
        self.world.shadows.pop(name, None)


class World:
    """Serving, announcer, fetcher and worker in one; `on_fetch` and `on_verify` may be changed."""

    def __init__(self, tmp_path):
        self.fetched = []
        self.served = {}
        self.shadows = {}
        self.misfits = set()
        self.answers = {}
        self.blobs = BlobStore(tmp_path)
        self.journal = Journal(tmp_path / "agent.db")
        self.slots = Slots(self.journal, self.blobs, self)
        self.slots.collect = lambda: None
        self.on_fetch = self.on_verify = self.nothing

    def installer(self):
        return Installer(
            slots=self.slots,
            journal=self.journal,
            blobs=self.blobs,
            fetcher=self,
            worker=self,
            serving=self,
            challengers=Challengers(self),
            announcer=self,
            probation=PROBATION,
        )

    async def nothing(self, _):
        """All is well."""

    async def check_file(self, path):
        """Every file can be installed here."""

    async def fetch(self, wanted):
        self.fetched.append(wanted.digest)
        staging = self.blobs.staging_for(wanted.digest)
        await self.on_fetch(wanted)
        return Fetched(staging=staging, signatures=())

    async def verify_layout(self, layout, *, digest, signatures, name, floors):
        await self.on_verify(digest)
        return self.verified(digest, name)

    async def verify_file(self, path, staging, *, digest, name, floors):
        return self.verified(path, "m")

    async def self_test(self, layout, stored):
        return Chosen(variant="v", figures={}, failed=())

    @staticmethod
    def verified(digest, name):
        stored = Stored(digest=digest, name=name, version="1", sequence=1, signatures=())
        return Verified(stored=stored, blobs=())

    async def serve(self, slot, layout):
        self.served[slot.name] = slot.active.digest
        self.answers[slot.name] = Answers()

    def stop(self, name):
        self.served.pop(name, None)

    def counters(self, name):
        return self.answers.get(name)

    def slot_changed(self, slot):
        """Nobody listens."""

    slot_removed = refused = slot_changed

    def install(self, digest, *, confirmed, name="m"):
        """Have a version installed already."""
        release = Release(digest=digest, version="0.9.0", sequence=1)
        installed = Installed(release=release, variant="v", proven=confirmed)
        self.slots.save(
            Slot(
                name=name,
                managed=True,
                phase=Phase.CONFIRMED if confirmed else Phase.PROBATION,
                target=digest,
                active=installed,
                confirmed=installed if confirmed else None,
            )
        )
        self.served[name] = digest
        self.answers[name] = Answers()


@contextlib.asynccontextmanager
async def at_work(world):
    installer = world.installer()
    installer.start()
    task = asyncio.create_task(installer.run())
    try:
        yield installer
        assert not task.done(), task.exception()
    finally:
        installer.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def phase(world, name="m"):
    return world.slots.get(name).phase


def test_models_that_fail_do_not_breed_timers(world, monkeypatch):
    """Two sources that are away for days cost one try each per interval."""
    monkeypatch.setattr(retries, "FIRST_S", 0.02)
    monkeypatch.setattr(retries, "LONGEST_S", 0.02)

    async def away(_):
        await asyncio.sleep(0.004)  # so that the timers of two failures do not fire as one
        raise FetchError("away")

    async def main():
        world.on_fetch = away
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A, "a"), model(B, "b")))
            await asyncio.sleep(0.5)

    asyncio.run(main())
    assert 4 <= len(world.fetched) <= 2 * 0.5 / 0.02 + 4


def test_a_slow_fetch_holds_up_no_rollback(world):
    """What fails on probation goes, however long another model's bundle is under way."""

    async def main():
        world.on_fetch = lambda _: asyncio.sleep(60)
        world.install(A, confirmed=False)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), model(B, "other")))
            await until(lambda: world.fetched)
            world.answers["m"].count(0, 5)
            await until(lambda: phase(world) is Phase.ROLLED_BACK)

    asyncio.run(main())


def test_a_slow_fetch_holds_up_no_installation_by_hand(world):
    """A file is installed meanwhile, and what was fetched for the same model is left."""
    go_on = asyncio.Event()

    async def main():
        world.on_fetch = lambda _: go_on.wait()
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await until(lambda: world.fetched)
            async with asyncio.timeout(5):
                await installer.by_hand.install_file(B)
            go_on.set()
            await asyncio.sleep(0.05)

    asyncio.run(main())
    slot = world.slots["m"]
    assert (B, 1, B) == (slot.active.digest, slot.held_generation, world.served["m"])


def test_what_answers_is_judged_while_the_next_version_cannot_be_fetched(world):
    """A source that is away for days is no reason to leave a failing version alone."""

    async def away(_):
        raise FetchError("away")

    async def main():
        world.install(A, confirmed=False)
        world.on_fetch = away
        async with at_work(world) as installer:
            installer.desire(desired(1, model(B)))
            await until(lambda: world.fetched)
            world.answers["m"].count(2, 0)
            await until(lambda: world.slots["m"].confirmed)

    asyncio.run(main())
    assert A == world.slots["m"].confirmed.digest


def test_what_answers_is_judged_after_a_restart(world):
    """Also when the slot tells of a later version that was rejected."""

    async def main():
        world.install(A, confirmed=False)
        rejected = world.slots["m"].start(B).reject("why", "", 1)
        world.slots.save(rejected)
        async with at_work(world):
            await asyncio.sleep(0)
            world.answers["m"].count(2, 0)
            await until(lambda: world.slots["m"].confirmed)

    asyncio.run(main())


def test_a_version_that_comes_back_unproven_is_judged(world):
    """After B failed, A answers again, which was never confirmed: it may fail as well."""

    async def main():
        world.install(A, confirmed=False)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(B)))
            await until(lambda: world.served["m"] == B and phase(world) is Phase.PROBATION)
            world.answers["m"].count(0, 5)
            await until(lambda: world.served["m"] == A)
            world.answers["m"].count(2, 0)
            await until(lambda: world.slots["m"].confirmed)

    asyncio.run(main())
    assert A == world.slots["m"].confirmed.digest


def test_a_failure_counts_under_the_state_that_asked_for_it(world):
    """A state that came meanwhile names the same bundle, perhaps with the right signature."""
    verifying = asyncio.Event()
    go_on = asyncio.Event()

    async def unsigned(_):
        verifying.set()
        await go_on.wait()
        raise RejectedError("not_trusted", "the wrong signature")

    async def main():
        world.on_verify = unsigned
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await verifying.wait()
            installer.desire(desired(2, model(A)))
            world.slots.generation = 2
            world.on_verify = world.nothing
            go_on.set()
            await until(lambda: phase(world) is Phase.PROBATION)

    asyncio.run(main())


def test_what_the_old_state_wanted_next_is_not_done(world):
    """The state changed while its first models were fetched: what waited is never begun."""
    slow = {A, B}

    async def main():
        world.on_fetch = lambda wanted: asyncio.sleep(60 if wanted.digest in slow else 0)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A, "a"), model(B, "b"), model(D, "d")))
            await until(lambda: len(world.fetched) == 2)
            installer.desire(desired(2, model(C, "c")))
            await until(lambda: phase(world, "c") is Phase.PROBATION)

    asyncio.run(main())
    assert [A, B, C] == world.fetched


def test_one_version_after_the_other_and_back(world):
    """A, then B, then A again before either is there: A is what runs in the end."""

    async def main():
        world.on_fetch = lambda _: asyncio.sleep(0.05)
        async with at_work(world) as installer:
            for generation, digest in enumerate([A, B, A], 1):
                installer.desire(desired(generation, model(digest)))
                await until(lambda digest=digest: world.fetched[-1:] == [digest])
            await until(lambda: phase(world) is Phase.PROBATION)

    asyncio.run(main())
    assert A == world.served["m"]


def test_removed_while_it_is_fetched(world):
    """The fetch ends, and nothing of the model is left, on disk either."""

    async def main():
        world.on_fetch = lambda _: asyncio.sleep(60)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await until(lambda: world.fetched)
            installer.desire(desired(2))
            await until(lambda: "m" not in world.slots.by_key)

    asyncio.run(main())
    assert [] == [path for path in world.blobs.staging.rglob("*") if "a" * 64 in path.name]


def test_a_rejected_bundle_leaves_nothing_in_staging(world):
    """Bad bundles do not fill the disk, one after the other."""

    async def bad(_):
        raise RejectedError("bundle_invalid", "damaged")

    async def main():
        world.on_verify = bad
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await until(lambda: phase(world) is Phase.REJECTED)

    asyncio.run(main())
    assert [] == [path for path in world.blobs.staging.rglob("*") if "a" * 64 in path.name]


def test_a_file_that_fails_does_not_stand_against_the_desired_state(world, monkeypatch):
    """Only what was really installed by hand holds."""

    async def crash(layout, stored):
        raise RejectedError("self_test_crashed", "signal SIGSEGV")

    async def main():
        async with at_work(world) as installer:
            world.slots.generation = 1
            monkeypatch.setattr(world, "self_test", crash)
            slot = await installer.by_hand.install_file(B)
            assert (Phase.REJECTED, None) == (slot.phase, slot.held_generation)

    asyncio.run(main())


def test_a_copy_on_disk_that_went_bad_is_fetched_anew(world):
    """A dying disk, or a signature whose key was replaced, bars no redeployment."""

    async def main():
        world.journal.save_bundle(world.verified(A, "m").stored)
        results = [RejectedError("bundle_invalid", "a blob is damaged")]

        async def bad_once(_):
            if results:
                raise results.pop()

        world.on_verify = bad_once
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await until(lambda: phase(world) is Phase.PROBATION)

    asyncio.run(main())
    assert [A] == world.fetched


def test_a_disk_that_fails_is_tried_again(world, monkeypatch):
    """Trouble of the device is no verdict about the bundle."""
    monkeypatch.setattr(retries, "FIRST_S", 0.02)
    results = [StoreError("disk full")]

    async def full_once(_):
        if results:
            raise results.pop()

    async def main():
        world.on_verify = full_once
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A)))
            await until(lambda: phase(world) is Phase.PROBATION)

    asyncio.run(main())


def test_stopping_in_the_tick_in_which_the_fetch_is_given_up(world):
    """The end of the agent is not mistaken for a changed desired state."""

    async def main():
        world.on_fetch = lambda _: asyncio.sleep(60)
        installer = world.installer()
        task = asyncio.create_task(installer.run())
        installer.desire(desired(1, model(A)))
        await until(lambda: world.fetched)
        installer.desire(desired(2, replace(model(B))))
        task.cancel()
        async with asyncio.timeout(2):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        installer.stop()

    asyncio.run(main())


def test_a_slow_source_holds_up_no_other_model(world):
    """One bundle is under way for hours; another model is installed and proven meanwhile."""

    async def main():
        world.on_fetch = lambda wanted: asyncio.sleep(60 if wanted.digest == A else 0)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A, "slow"), model(B, "quick")))
            await until(lambda: phase(world, "quick") is Phase.PROBATION)
            world.answers["quick"].count(2, 0)
            await until(lambda: phase(world, "quick") is Phase.CONFIRMED)
            assert Phase.FETCHING is phase(world, "slow")

    asyncio.run(main())


def test_a_hung_self_test_holds_up_no_rollback_of_another_model(world, monkeypatch):
    """What fails on probation goes while a new version of another model is tested."""
    testing = asyncio.Event()

    async def hang(layout, stored):
        testing.set()
        await asyncio.sleep(60)

    async def main():
        monkeypatch.setattr(world, "self_test", hang)
        world.install(A, confirmed=False)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), model(B, "other")))
            await testing.wait()
            world.answers["m"].count(0, 5)
            await until(lambda: phase(world) is Phase.ROLLED_BACK)

    asyncio.run(main())


def test_a_defect_that_one_model_meets_leaves_the_others(world, monkeypatch):
    """Whatever breaks in the install of one model, the other one is installed."""
    monkeypatch.setattr(retries, "FIRST_S", 0.02)

    async def broken(wanted):
        if wanted.digest == A:
            raise ZeroDivisionError

    async def main():
        world.on_fetch = broken
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A, "a"), model(B, "b")))
            await until(lambda: phase(world, "b") is Phase.PROBATION)

    asyncio.run(main())


def test_a_report_that_fails_rolls_nothing_back(world, monkeypatch):
    """A device that cannot say what it does does it all the same."""

    def fail(_):
        raise OSError("no report")

    async def main():
        async with at_work(world) as installer:
            monkeypatch.setattr(world, "slot_changed", fail)
            installer.desire(desired(1, model(A)))
            await until(lambda: phase(world) is Phase.PROBATION)
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world) is Phase.CONFIRMED)

    asyncio.run(main())


def test_a_version_that_failed_is_tried_again_only_when_it_is_asked_for_again(world):
    """A state that changes for another model is no reason to try it again, nor is a restart."""

    async def fails(_):
        raise RejectedError("not_trusted", "no")

    async def main():
        world.on_verify = fails
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A, asked=1)))
            await until(lambda: phase(world) is Phase.REJECTED)
        async with at_work(world) as installer:
            installer.desire(desired(2, model(A, asked=1), model(B, "other", asked=2)))
            await until(lambda: phase(world, "other") is Phase.REJECTED)
            assert [A, B] == world.fetched
            installer.desire(desired(3, model(A, asked=3), model(B, "other", asked=2)))
            await until(lambda: world.fetched == [A, B, A])

    asyncio.run(main())


def test_endless_cycles_end(world):
    """However often a state asks for it anew, a version that fails is tried three times."""

    async def fails(_):
        raise RejectedError("self_test_failed", "no")

    async def main():
        world.on_verify = fails
        async with at_work(world) as installer:
            for generation in range(1, 7):
                installer.desire(desired(generation, model(A)))
                await until(
                    lambda g=generation: (
                        world.slots.get("m").failed_generation == g
                        and phase(world) is Phase.REJECTED
                    )
                )
            assert [A] * PROBATION.max_attempts == world.fetched
            assert "loop_broken" == world.slots["m"].reason
            world.on_verify = world.nothing
            await installer.by_hand.release("m")
            installer.reconsider()
            await until(lambda: phase(world) is Phase.PROBATION)

    asyncio.run(main())


def test_going_back_by_hand_holds_until_the_state_changes_its_mind(world):
    """The version before answers at once, proven as it is, and stays."""

    async def main():
        world.install(A, confirmed=True)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(B, asked=1)))
            await until(lambda: phase(world) is Phase.PROBATION)
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world) is Phase.CONFIRMED)
            slot = await installer.by_hand.roll_back("m")
            assert (Phase.CONFIRMED, A, A) == (slot.phase, slot.active.digest, world.served["m"])
            assert (True, "rollback") == (slot.reported().held, slot.reported().hold)
            installer.desire(desired(2, model(B, asked=1), model(C, "other", asked=2)))
            await until(lambda: phase(world, "other") is Phase.PROBATION)
            assert A == world.served["m"]
            await installer.by_hand.release("m")
            installer.reconsider()
            await until(lambda: world.served["m"] == B)

    asyncio.run(main())


def test_going_back_by_hand_from_what_is_on_probation(world):
    """A person need not wait for the verdict, which is not passed on the version that came back."""

    async def main():
        world.install(A, confirmed=True)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(B)))
            await until(lambda: phase(world) is Phase.PROBATION)
            await installer.by_hand.roll_back("m", to="0.9.0")
            world.answers["m"].count(0, 50)
            await asyncio.sleep(0.2)

    asyncio.run(main())
    assert (Phase.CONFIRMED, A) == (phase(world), world.served["m"])


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [("other", None, "unknown_model"), ("m", "2.0.0", "not_on_disk"), ("m", None, "not_on_disk")],
)
def test_going_back_to_what_is_not_there(world, name, to, reason):
    """It is said, and nothing changes."""

    async def main():
        world.install(A, confirmed=True)
        before = world.slots["m"]
        async with at_work(world) as installer:
            with pytest.raises(DecisionError) as caught:
                await installer.by_hand.roll_back(name, to)
            assert (reason, before) == (caught.value.reason, world.slots["m"])

    asyncio.run(main())


def offer(digest, **fields):
    return replace(model(digest, **fields), mode=Mode.OFFER)


def test_an_offer_is_fetched_when_a_person_asks(world):
    """Not before; and it stays beside what is to be installed, until it is asked for."""

    async def main():
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), offer(B)))
            await until(lambda: world.slots.get("m").active)
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world) is Phase.CONFIRMED)
            assert [A] == world.fetched
            await installer.by_hand.take_offer("m", B, by="cmd")
            installer.reconsider()
            await until(lambda: world.served["m"] == B)
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world) is Phase.CONFIRMED)
            installer.reconsider()
            await asyncio.sleep(0.05)

    asyncio.run(main())
    assert (B, [A, B]) == (world.served["m"], world.fetched)


def test_an_offer_that_fails_has_to_be_asked_for_again(world):
    """A new generation alone is no person, and what is to be installed comes back."""

    async def fails(digest):
        if digest == B:
            raise RejectedError("self_test_failed", "no")

    async def main():
        world.on_verify = fails
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), offer(B)))
            await until(lambda: world.slots.get("m").active)
            await installer.by_hand.take_offer("m", B, by="local")
            installer.reconsider()
            await until(lambda: phase(world) is Phase.REJECTED)
            installer.desire(desired(2, model(A), offer(B)))
            await asyncio.sleep(0.05)
            assert [A, B] == world.fetched
            await installer.by_hand.take_offer("m", B, by="local")
            installer.reconsider()
            await until(lambda: world.fetched == [A, B, B])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "digest", "lifetime_s", "reason"),
    [
        ("n", A, 1000, "not_offered"),
        ("m", C, 1000, "not_offered"),
        ("m", A, -1, "expired"),
        ("on", B, 1000, "already_active"),
    ],
)
def test_what_cannot_be_asked_for(world, name, digest, lifetime_s, reason):
    """Another model, another digest, too late, or here already: it is said, nothing is fetched."""

    async def main():
        world.install(B, confirmed=True, name="on")
        async with at_work(world) as installer:
            state = desired(1, offer(A), offer(B, name="on"))
            installer.desire(replace(state, expires_s=int(time.time()) + lifetime_s))
            await asyncio.sleep(0.02)
            with pytest.raises(DecisionError) as caught:
                await installer.by_hand.take_offer(name, digest, by="cmd")
            assert reason == caught.value.reason

    asyncio.run(main())
    assert [] == world.fetched


def shadow(digest, **fields):
    return replace(model(digest, **fields), mode=Mode.SHADOW)


SHADOW = shadow_key("m")


def test_a_challenger_runs_beside_a_proven_model(world):
    """It waits for the model to be confirmed, answers nobody, and goes when it is not listed."""

    async def main():
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), shadow(B)))
            await until(lambda: phase(world) is Phase.PROBATION)
            await asyncio.sleep(0.05)
            assert [A] == world.fetched
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world, SHADOW) is Phase.SHADOWING)
            assert ({"m": A}, {"m": B}) == (world.served, world.shadows)
            installer.desire(desired(2, model(A)))
            await until(lambda: SHADOW not in world.slots.by_key)
            assert ({"m": A}, {}) == (world.served, world.shadows)

    asyncio.run(main())


def test_a_challenger_is_promoted_from_the_disk(world):
    """Deploying it fetches nothing, and it stops being a challenger."""

    async def main():
        world.install(A, confirmed=True)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), shadow(B)))
            await until(lambda: phase(world, SHADOW) is Phase.SHADOWING)
            world.journal.save_bundle(world.verified(B, "m").stored)
            installer.desire(desired(2, model(B)))
            await until(lambda: world.served["m"] == B)
            await until(lambda: SHADOW not in world.slots.by_key)

    asyncio.run(main())
    assert ([B], {}) == (world.fetched, world.shadows)


@pytest.mark.parametrize("when", ["cast", "later"])
def test_a_challenger_that_fails_disappears_with_a_reason(world, when):
    """What answers never notices, and it is not tried again until it is asked for anew."""

    async def main():
        world.install(A, confirmed=True)
        if when == "cast":
            world.misfits.add(B)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), shadow(B)))
            if when == "later":
                await until(lambda: phase(world, SHADOW) is Phase.SHADOWING)
                installer.challenger_failed("m", "it crashed")
            await until(lambda: phase(world, SHADOW) is Phase.REJECTED)
            installer.reconsider()
            await asyncio.sleep(0.05)
            slot = world.slots[SHADOW]
            assert ("shadow_failed", None) == (slot.reason, slot.active)
            assert (Phase.CONFIRMED, [B], {}) == (phase(world), world.fetched, world.shadows)

    asyncio.run(main())


def test_a_challenger_goes_on_after_a_restart(world):
    """It is cast again once the models answer; if it cannot be, it goes."""

    async def main():
        world.install(A, confirmed=True)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), shadow(B)))
            await until(lambda: phase(world, SHADOW) is Phase.SHADOWING)
        world.shadows.clear()
        async with at_work(world):
            await until(lambda: world.shadows == {"m": B})
        world.misfits.add(B)
        async with at_work(world):
            await until(lambda: phase(world, SHADOW) is Phase.REJECTED)

    asyncio.run(main())


def test_a_file_holds_against_a_wish_that_is_older_than_the_state(world):
    """What cannot be fetched yet does not overrule what a person brought."""

    async def away(_):
        raise FetchError("away")

    async def main():
        world.on_fetch = away
        async with at_work(world) as installer:
            installer.desire(desired(7, model(A, asked=3)))
            await until(lambda: world.fetched)
            await installer.by_hand.install_file(B)
            installer.reconsider()
            await asyncio.sleep(0.05)

    asyncio.run(main())
    slot = world.slots["m"]
    assert (B, 3, [A]) == (slot.active.digest, slot.held_generation, world.fetched)


def test_letting_go_lets_a_challenger_be_tried_again(world):
    """It is part of its model."""

    async def main():
        world.install(A, confirmed=True)
        world.misfits.add(B)
        async with at_work(world) as installer:
            installer.desire(desired(1, model(A), shadow(B)))
            await until(lambda: phase(world, SHADOW) is Phase.REJECTED)
            world.misfits.clear()
            await installer.by_hand.release("m")
            installer.reconsider()
            await until(lambda: world.shadows == {"m": B})

    asyncio.run(main())
