"""Whatever is desired, is there and fails: it converges, and nothing proven is lost on the way.

A device is played by carrying out what `reconcile` decides on slots alone, with failures drawn
where a real device has them.
"""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgepack.agent.config import ProbationConfig
from edgepack.agent.install.reconcile import BreakLoop, Install, Refuse, Remove, reconcile, wish_of
from edgepack.agent.install.slot import Hold, Installed, Slot
from edgepack.agent.install.transitions import Phase
from edgepack.wire.desired import Audience, Desired, DesiredModel, Mode
from edgepack.wire.messages import Release

NAMES = ("a", "b")
DIGESTS = tuple("sha256:" + letter * 64 for letter in "1234")
LIMITS = ProbationConfig(max_attempts=2)
NOW_S = 1_000.0
MOST_ROUNDS = 40


def installed(digest, *, proven=False):
    release = Release(digest=digest, version="1", sequence=1)
    return Installed(release=release, variant="v", proven=proven)


def desired_of(generation, *models, expires_s=2_000):
    return Desired(
        audience=Audience(prefix="p", device="d"),
        generation=generation,
        issued_s=0,
        expires_s=expires_s,
        models=models,
    )


@st.composite
def states(draw, generation):
    entries = draw(
        st.lists(
            st.tuples(st.sampled_from(NAMES), st.sampled_from(list(Mode))),
            unique=True,
            max_size=4,
        )
    )
    models = tuple(
        DesiredModel(
            name=name,
            version="1",
            digest=draw(st.sampled_from(DIGESTS)),
            mode=mode,
            asked=draw(st.integers(0, generation)),
        )
        for name, mode in entries
    )
    return desired_of(generation, *models, expires_s=draw(st.sampled_from([500, 2_000])))


@st.composite
def devices(draw):
    """Slots as a device has them after some life: proven, on probation, held, asked for, failed."""
    slots = {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        slot = Slot(name=name, managed=draw(st.booleans()))
        if draw(st.booleans()):
            proven = installed(draw(st.sampled_from(DIGESTS)), proven=True)
            slot = replace(slot, phase=Phase.CONFIRMED, active=proven, confirmed=proven)
            if draw(st.booleans()):
                new = installed(draw(st.sampled_from(DIGESTS)))
                if new.digest != proven.digest:
                    slot = replace(slot, phase=Phase.PROBATION, active=new, previous=proven)
        if draw(st.booleans()):
            slot = slot.held_by(Hold.ROLLBACK)
        if draw(st.booleans()):
            slot = slot.consents(draw(st.sampled_from(DIGESTS)), "cmd")
        slots[slot.key] = slot
        if draw(st.booleans()):
            challenger = Slot(
                name=name,
                shadow=True,
                managed=True,
                phase=Phase.SHADOWING,
                active=installed(draw(st.sampled_from(DIGESTS))),
            )
            slots[challenger.key] = challenger
    return slots


class Device:
    """Slots that change as `apply` changes them; `bad` digests never pass."""

    def __init__(self, slots, bad):
        self.slots = dict(slots)
        self.bad = bad
        self.installs = 0

    def settle(self, desired):
        """Reconcile until there is nothing to do; the refusals that remain."""
        for _ in range(MOST_ROUNDS):
            actions = reconcile(desired, self.slots, now_s=NOW_S, limits=LIMITS)
            todo = [action for action in actions if not isinstance(action, Refuse)]
            if not todo:
                return actions
            keys = [action.key for action in todo]
            assert len(keys) == len(set(keys))
            for action in todo:
                self.carry_out(action, desired)
        raise AssertionError("it never ends")

    def carry_out(self, action, desired):
        if isinstance(action, Remove):
            del self.slots[action.key]
            return
        model = action.model
        wish = wish_of(desired, model)
        shadow = model.mode is Mode.SHADOW
        slot = self.slots.get(action.key, Slot(name=model.name, shadow=shadow))
        if isinstance(action, BreakLoop):
            self.slots[action.key] = slot.break_loop(model.digest, action.detail, wish)
            return
        assert isinstance(action, Install)
        self.installs += 1
        before = slot.confirmed
        slot = replace(slot, held_generation=None, hold=Hold.NONE, managed=True, wish=wish)
        slot = slot.start(model.digest)
        steps = [slot := slot.advance() for _ in range(4)]
        assert all(step.confirmed == before for step in steps)  # it stays while another is tried
        if shadow:
            slot = slot.cast_shadow(installed(model.digest))
            if model.digest in self.bad:
                slot = slot.reject("shadow_failed", "", wish, now_s=NOW_S)
        else:
            slot = slot.switch(installed(model.digest))
            assert slot.confirmed == before
            if model.digest in self.bad:
                slot = slot.roll_back("probation_errors", "", wish, now_s=NOW_S)
                assert before is None or before.digest == model.digest or slot.active == before
            else:
                slot = slot.confirm("", 0)
        self.slots[action.key] = slot


BAD = st.sets(st.sampled_from(DIGESTS))


@given(devices(), states(generation=9), BAD)
def test_it_converges(slots, desired, bad):
    """A few rounds, and what is desired runs, or it is known why not."""
    device = Device(slots, bad)
    refusals = device.settle(desired)
    assert refusals == reconcile(desired, device.slots, now_s=NOW_S, limits=LIMITS)
    refused = {refusal.name for refusal in refusals}
    for model in desired.models:
        if model.mode is not Mode.INSTALL or model.name in refused:
            continue
        slot = device.slots[model.name]
        offered = [
            one.digest for one in desired.models if (one.name, one.mode) == (model.name, Mode.OFFER)
        ]
        assert (
            (slot.active is not None and slot.active.digest in (model.digest, *offered))
            or slot.held_generation is not None
            or model.digest in slot.failed
            or slot.consent in (slot.failed, *offered)
        )


WISHES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(DIGESTS), st.sampled_from(Mode)),
    max_size=24,
)


@given(WISHES)
def test_no_flapping_installs_for_ever(wishes):
    """However often the state changes, a version that fails is tried a bounded number of times."""
    device = Device({}, set(DIGESTS))
    for generation, (name, digest, mode) in enumerate(wishes, 1):
        model = DesiredModel(name=name, version="1", digest=digest, mode=mode)
        device.settle(desired_of(generation, model))
    entries = len(NAMES) * 2 * len(DIGESTS)  # a model and a challenger of each name
    assert device.installs <= entries * LIMITS.max_attempts


@given(devices(), states(generation=9), BAD)
def test_what_was_proven_answers_after_every_failure(slots, desired, bad):
    """A model whose proven version is good has one that answers, as long as it is here."""
    device = Device(slots, bad)
    had = {
        key
        for key, slot in slots.items()
        if slot.confirmed is not None and slot.confirmed.digest not in bad
    }
    device.settle(desired)
    for key in had & device.slots.keys():
        assert device.slots[key].active is not None
        assert device.slots[key].confirmed is not None


@given(devices(), states(generation=9))
def test_what_nobody_asked_for_is_not_installed(slots, desired):
    """Offers wait for a person, challengers for a proven model that is not they themselves."""
    for action in reconcile(desired, slots, now_s=NOW_S, limits=LIMITS):
        if not isinstance(action, Install):
            continue
        slot = slots.get(action.model.name)
        if action.model.mode is Mode.OFFER:
            assert slot.consent == action.model.digest
        if action.model.mode is Mode.SHADOW:
            assert slot.confirmed is not None
            assert slot.active.digest != action.model.digest
