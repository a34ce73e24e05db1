"""What a person decides: install a file, take an offer, go back, let go again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgepack.agent.errors import DecisionError, RejectedError
from edgepack.agent.install.obtain import Obtainer
from edgepack.agent.install.probation import Probations
from edgepack.agent.install.reconcile import wanted_by_key, wish_of
from edgepack.agent.install.slot import Hold, Installed, Slot, shadow_key
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import IN_PROGRESS
from edgepack.agent.install.trial import Trials
from edgepack.wire.desired import Desired, DesiredModel, Mode

_SHORTEST_DIGEST = 8


class ByHand:
    """Carries out local decisions; they hold against the desired state until it changes.

    Args:
        slots: The slots.
        obtainer: Takes files.
        trials: Tries versions.
        probations: Watches what was never proven.
        desired: The desired state that is followed, with its offers; or None.
        now_s: Seconds since 1970, to compare an expiry with; None when the clock cannot be right.
    """

    def __init__(
        self,
        slots: Slots,
        obtainer: Obtainer,
        trials: Trials,
        probations: Probations,
        *,
        desired: Callable[[], Desired | None],
        now_s: Callable[[], float | None],
    ) -> None:
        self._slots = slots
        self._obtainer = obtainer
        self._trials = trials
        self._probations = probations
        self._desired = desired
        self._now_s = now_s

    async def install_file(self, path: Path) -> Slot:
        """Install a file that somebody brought to the device.

        Returns:
            The slot, in `probation` or `rejected`.

        Raises:
            RejectedError: The file is not a bundle that the root of trust accepts; there is no
                slot to report it in when not even its name can be believed.
            StoreError: The disk does not take it.
        """
        stored = await self._obtainer.take_file(path)
        with self._slots.holding(stored.digest):
            async with self._slots.lock(stored.name):
                slot = self._wished(self._slots.get(stored.name))
                if slot.active is None or slot.active.digest != stored.digest:
                    self._trials.begin(slot, stored.digest)
                    model = DesiredModel(
                        name=stored.name, version=stored.version, digest=stored.digest
                    )
                    await self._trials.run(model, None, slot.wish, hold=Hold.INSTALL)
                return self._slots[stored.name]

    async def roll_back(self, name: str, to: str | None = None) -> Slot:
        """Go back to a version that is on disk and was tried before.

        Args:
            name: The model.
            to: Version, or digest, or the first eight characters or more of its hex; None is the
                last confirmed version, or the one before it where that is what answers: never a
                newer one, and after a rollback by hand only an older one.

        Raises:
            DecisionError: There is no such model or version, or more than one, or nothing older.
            RejectedError: It does not load any more; what answered goes on.
            StoreError: The disk does not take it.
        """
        async with self._slots.lock(name):
            slot = self._wished(self._known(name))
            target = _chosen(slot, to)
            if slot.phase in IN_PROGRESS:
                slot = slot.recover(unclean=False)
            left = slot.active.release.version if slot.active else "nothing"
            self._slots.save(slot.revert(target.digest))
            try:
                await self._trials.switch(name, target, Hold.ROLLBACK)
            except RejectedError as exc:
                self._slots.save(self._slots[name].reject(exc.reason, str(exc), slot.wish))
                raise
            self._probations.cancel(name)
            if target.proven:
                back = self._slots[name]
                self._slots.save(back.confirm(f"rolled back by hand from {left}", back.floor))
            else:
                self._probations.watch(name)
            return self._slots[name]

    async def release(self, name: str) -> Slot:
        """Follow the desired state again, and try again what failed, a challenger included.

        Raises:
            DecisionError: There is no such model.
            StoreError: The disk does not take it.
        """
        self._known(name)
        for key in (shadow_key(name), name):
            async with self._slots.lock(key):
                slot = self._slots.by_key.get(key)
                if slot is not None:
                    self._slots.save(slot.released())
        return self._known(name)

    async def take_offer(self, name: str, digest: str | None = None, *, by: str) -> Slot:
        """Ask for an offered version; `reconcile` fetches and installs it.

        Args:
            name: The model.
            digest: What the person has seen; None takes whatever is offered.
            by: How the person asked.

        Raises:
            DecisionError: Nothing like it is offered, the offer has expired, or it runs already.
            StoreError: The disk does not take it.
        """
        desired = self._desired()
        models = desired.models if desired is not None else ()
        offers = (one for one in models if one.mode is Mode.OFFER and one.name == name)
        offer = next(offers, None)
        if desired is None or offer is None:
            raise DecisionError("not_offered", f"no version of {name!r} is offered")
        if digest is not None and digest != offer.digest:
            raise DecisionError(
                "not_offered", f"{name}: digest must be {offer.digest}, got {digest}"
            )
        now_s = self._now_s()
        if now_s is not None and now_s > desired.expires_s:
            late = int(now_s - desired.expires_s)
            raise DecisionError("expired", f"{name}: the offer expired {late} s ago")
        async with self._slots.lock(name):
            slot = self._slots.get(name)
            if slot.active is not None and slot.active.digest == offer.digest:
                raise DecisionError("already_active", f"{name} {offer.version} runs already")
            self._slots.save(slot.consents(offer.digest, by))
            return self._slots[name]

    def _wished(self, slot: Slot) -> Slot:
        """The slot, with the wish that a decision about it stands against."""
        desired = self._desired()
        if desired is None:
            return slot
        wanted = wanted_by_key(desired, self._slots.by_key).get(slot.key)
        return slot if wanted is None else replace(slot, wish=wish_of(desired, wanted))

    def _known(self, name: str) -> Slot:
        slot = self._slots.by_key.get(name)
        if slot is None or slot.shadow:
            raise DecisionError("unknown_model", f"model {name!r} is not on this device")
        return slot


def _chosen(slot: Slot, to: str | None) -> Installed:
    active = slot.active.digest if slot.active else ""
    on_disk = {one.digest: one for one in slot.kept() if one.digest != active}
    there = ", ".join(f"{one.release.version} ({one.digest[:19]})" for one in on_disk.values())
    if to is None:
        for one in (slot.confirmed, slot.previous):
            if one is not None and one.digest != active and _leads_back(one, slot):
                return one
        is_again = slot.hold is Hold.ROLLBACK
        raise DecisionError(
            "already_rolled_back" if is_again else "not_on_disk",
            f"{slot.name}{' was rolled back already:' if is_again else ':'} nothing older is on "
            f"disk{f'; --to names what is: {there}' if there else ''}",
        )
    found = [one for one in on_disk.values() if _is_meant(one, to)]
    if len(found) != 1:
        raise DecisionError(
            "not_on_disk" if not found else "ambiguous",
            f"{slot.name}: {to!r} must be one of those on disk, got {there or 'none'}",
        )
    return found[0]


def _leads_back(one: Installed, slot: Slot) -> bool:
    """Whether nobody would call it going forward: to a newer version, or to what was just left."""
    if slot.active is None:
        return True
    if slot.hold is Hold.ROLLBACK:
        return one.release.sequence < slot.active.release.sequence
    return one == slot.confirmed or one.release.sequence <= slot.active.release.sequence


def _is_meant(installed: Installed, to: str) -> bool:
    if to in (installed.release.version, installed.digest):
        return True
    digits = to.removeprefix("sha256:")
    return len(digits) >= _SHORTEST_DIGEST and installed.digest.removeprefix("sha256:").startswith(
        digits
    )
