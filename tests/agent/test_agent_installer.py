"""The installer: what waits, what is tried again, what is judged."""

import asyncio
from dataclasses import replace

import pytest
from support.install_world import (
    PROBATION,
    A,
    Answers,
    B,
    C,
    D,
    World,
    at_work,
    desired,
    model,
    phase,
    until,
)

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install import probation, retries
from edgepack.agent.install.judge import Figures
from edgepack.agent.install.transitions import Phase


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


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


@pytest.mark.parametrize(("failures", "expected"), [(0, Phase.CONFIRMED), (12, Phase.ROLLED_BACK)])
def test_a_device_that_is_restarted_again_and_again_comes_to_a_verdict(
    world, monkeypatch, failures, expected
):
    """Each start goes on counting where the one before ended, tidily or not."""
    monkeypatch.setattr(probation, "_KEEP_S", 0.0)
    world.limits = ProbationConfig(requests=100, seconds=3600, max_error_rate=0.05)
    world.install(A, confirmed=True)
    world.install(B, confirmed=False)

    async def start(*, tidy):
        async with at_work(world) as installer:
            world.answers["m"] = Answers()
            world.answers["m"].count(30 - failures, failures)
            if not tidy:  # what is kept now and then is all that there is
                enough = tried + 30 - failures
                await until(
                    lambda: (
                        phase(world) is not Phase.PROBATION
                        or world.slots["m"].tried.requests >= enough
                    )
                )
                installer.probations.cancel("m")

    starts = 0
    while world.slots["m"].phase is Phase.PROBATION:
        tried = world.slots["m"].tried.requests
        asyncio.run(start(tidy=starts % 2 == 0))
        world.slots = world.new_slots()
        starts += 1
        assert starts <= 5, world.slots["m"]
    assert expected is world.slots["m"].phase
    assert (Figures(), 0.0) == (world.slots["m"].tried, world.slots["m"].tried_s)


def test_the_time_of_a_probation_goes_on_over_restarts(world):
    """Not the time that the device was off."""
    world.limits = ProbationConfig(requests=100, seconds=3600)
    world.install(A, confirmed=False)
    world.slots.note(replace(world.slots["m"], tried_s=3599.9))

    async def start():
        async with at_work(world):
            await until(lambda: phase(world) is Phase.CONFIRMED)

    asyncio.run(start())
    assert world.slots["m"].detail.startswith("unexercised")
