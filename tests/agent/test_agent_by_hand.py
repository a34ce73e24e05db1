"""The installer: what a person decides, offers, challengers."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.install_world import (
    A,
    Answers,
    B,
    C,
    World,
    at_work,
    desired,
    model,
    phase,
    until,
)

from edgepack.agent.decisions import Decisions
from edgepack.agent.errors import DecisionError, FetchError, RejectedError
from edgepack.agent.install.slot import Installed, Slot, shadow_key
from edgepack.agent.install.transitions import Phase
from edgepack.wire.desired import Mode
from edgepack.wire.messages import Release


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


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


def kept(digest, sequence, *, proven=True):
    release = Release(digest=digest, version=f"{sequence}.0.0", sequence=sequence)
    return Installed(release=release, variant="v", proven=proven)


def has(world, active, **others):
    """A slot that holds these versions."""
    phase = Phase.CONFIRMED if others.get("confirmed") == active else Phase.PROBATION
    world.slots.save(Slot(name="m", phase=phase, target=active.digest, active=active, **others))
    world.served["m"], world.answers["m"] = active.digest, Answers()


def test_going_back_again_never_goes_forward(world):
    """Neither at once, nor after the hold has ended, nor from what the fleet went back to."""

    async def refused(installer):
        with pytest.raises(DecisionError, match="nothing older is on disk; --to names") as caught:
            await installer.by_hand.roll_back("m")
        assert (A, A) == (world.served["m"], world.slots["m"].active.digest)
        return caught.value.reason

    async def main():
        has(world, kept(B, 2), confirmed=kept(B, 2), previous=kept(A, 1))
        async with at_work(world) as installer:
            await installer.by_hand.roll_back("m")
            assert A == world.served["m"]
            assert "already_rolled_back" == await refused(installer)
            await installer.by_hand.release("m")
            assert "not_on_disk" == await refused(installer)
            has(world, kept(A, 1), confirmed=kept(A, 1), previous=kept(B, 2))
            assert "not_on_disk" == await refused(installer)
            await installer.by_hand.roll_back("m", to="2.0.0")
            assert B == world.served["m"]

    asyncio.run(main())


def test_going_back_again_goes_to_an_older_version_that_is_there(world):
    """From the third to the second, and from there to the first."""

    async def main():
        newest = kept(C, 3, proven=False)
        has(world, newest, previous=kept(B, 2, proven=False), confirmed=kept(A, 1))
        async with at_work(world) as installer:
            await installer.by_hand.roll_back("m", to="2.0.0")
            assert B == world.served["m"]
            await installer.by_hand.roll_back("m")
            assert A == world.served["m"]

    asyncio.run(main())


def test_going_back_from_what_is_not_proven(world):
    """To the last confirmed version, though the one on probation was signed before it."""

    async def main():
        has(world, kept(A, 1, proven=False), confirmed=kept(B, 2))
        async with at_work(world) as installer:
            await installer.by_hand.roll_back("m")
            assert B == world.served["m"]

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


def test_a_challenger_stands_beside_what_a_person_went_back_to(world):
    """The version that was left is a challenger again, and no complaint about it stays."""

    async def main():
        world.install(A, confirmed=True)
        async with at_work(world) as installer:
            decide = Decisions(lambda: SimpleNamespace(installer=installer)).local()
            installer.desire(desired(1, model(A), shadow(B)))
            await until(lambda: world.shadows == {"m": B})
            await decide["install"]({"path": B})
            await until(lambda: world.shadows == {})  # it answers itself
            world.answers["m"].count(2, 0)
            await until(lambda: phase(world) is Phase.CONFIRMED)
            await decide["rollback"]({"model": "m"})
            await until(lambda: world.shadows == {"m": B})
            assert {"m": A} == world.served

    asyncio.run(main())


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
