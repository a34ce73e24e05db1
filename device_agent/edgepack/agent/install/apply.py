"""Carries out what `reconcile` decided: each slot by its own task, step by step.

Models do not wait for one another: a slow source, a hung self-test's clean-up or a defect of one
leaves the others alone. Every step is in the journal before the next one begins, so that a kill at
any point leaves a device that serves its last good model and knows what to do.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.by_hand import ByHand
from edgepack.agent.install.fetch import Fetcher
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.obtain import Obtainer
from edgepack.agent.install.probation import Probations
from edgepack.agent.install.reconcile import (
    BreakLoop,
    Install,
    Refuse,
    Remove,
    key_of,
    reconcile,
    wanted_by_key,
    wish_of,
)
from edgepack.agent.install.retries import Retries
from edgepack.agent.install.serving import Challengers, Serving
from edgepack.agent.install.slot import Hold, Slot, shadow_key
from edgepack.agent.install.slots import Announcer, Slots
from edgepack.agent.install.transitions import Phase
from edgepack.agent.install.trial import Trials
from edgepack.agent.install.worker import Worker
from edgepack.wire.desired import Desired, DesiredModel, Mode

logger = logging.getLogger(__name__)

_Task = Install | Remove | BreakLoop


class Installer:
    """Brings the slots to the desired state.

    Args:
        slots: What is there.
        journal: The agent's memory.
        blobs: The store.
        fetcher: Gets bundles.
        worker: Verifies and self-tests in child processes.
        serving: Answers requests.
        challengers: Runs challengers.
        announcer: Hears why a desired state is not followed.
        probation: When a version counts as proven, and how often one may fail.
        now_s: Seconds since 1970, to compare an expiry with; None when the clock cannot be right.
        fetches_at_once: How many bundles are fetched at the same time.
    """

    def __init__(
        self,
        *,
        slots: Slots,
        journal: Journal,
        blobs: BlobStore,
        fetcher: Fetcher,
        worker: Worker,
        serving: Serving,
        challengers: Challengers,
        announcer: Announcer,
        probation: ProbationConfig,
        now_s: Callable[[], float | None] = time.time,
        fetches_at_once: int = 2,
    ) -> None:
        self.slots = slots
        self._now_s = now_s
        self._blobs = blobs
        self._serving = serving
        self._challengers = challengers
        self._announcer = announcer
        self._limits = probation
        self.testing = asyncio.Lock()
        self._obtainer = Obtainer(
            journal, blobs, fetcher, worker, slots, at_once=fetches_at_once, testing=self.testing
        )
        self._wake = asyncio.Event()
        self.probations = Probations(
            probation,
            slots,
            serving,
            blobs.layout,
            floor_of=self._floor_of,
            decided=self._wake.set,
        )
        self._trials = Trials(
            slots,
            blobs,
            self._obtainer,
            worker,
            serving,
            challengers=challengers,
            probations=self.probations,
            testing=self.testing,
        )
        self.by_hand = ByHand(
            slots,
            self._obtainer,
            self._trials,
            self.probations,
            desired=lambda: self._desired,
            now_s=now_s,
        )
        self._desired: Desired | None = None
        self._retries = Retries(self._wake.set)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drops: set[asyncio.Task[None]] = set()
        self._troubles: dict[str, str] = {}

    def start(self) -> None:
        """Go on with what was on probation before this start."""
        with contextlib.suppress(StoreError):  # said again by the first fetch
            self._blobs.clear_staging()
        for key, slot in self.slots.by_key.items():
            if slot.is_unproven:
                self.probations.watch(key)
            elif slot.shadow and slot.active is not None:
                self._tasks[key] = asyncio.create_task(self._cast_again(key), name=f"cast {key}")

    def desire(self, desired: Desired) -> None:
        """Follow this desired state from now on; its signature was verified."""
        self._desired = desired
        self.slots.generation = desired.generation
        self._retries.clear()
        wanted = wanted_by_key(desired, self.slots.by_key)
        self._obtainer.give_up_unless({key: model.digest for key, model in wanted.items()})
        self._wake.set()

    def abandon(self) -> None:
        """Follow no desired state until the next one: this one is no longer vouched for.

        What answers goes on answering; what was being fetched is left.
        """
        self._desired = None
        self._obtainer.give_up_unless({})

    def reconsider(self) -> None:
        """Reconcile again: the desired state is unchanged, the world may not be."""
        self._retries.clear()
        self._wake.set()

    async def run(self) -> None:
        """Reconcile whenever something changed, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._desired is not None:
                    self._reconcile(self._desired)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def stop(self) -> None:
        """Let go of everything that waits; what is on disk says where to go on."""
        self.probations.stop()
        self._retries.clear()
        self._obtainer.give_up_unless({})

    def _reconcile(self, desired: Desired) -> None:
        self._note_wishes(desired)
        self._blobs.discard_staging_except({model.digest for model in desired.models})
        actions = reconcile(desired, self.slots.by_key, now_s=self._now_s(), limits=self._limits)
        refusals = []
        for action in actions:
            if isinstance(action, Refuse):
                refusals.append(f"{action.name}: {action.detail}")
            elif action.key not in self._tasks and not self._must_wait(action):
                self._begin_task(action, desired)
        self._announcer.refused("; ".join([*refusals, *self._troubles.values()]))

    def _must_wait(self, action: _Task) -> bool:
        return isinstance(action, Install) and self._retries.is_waiting(action.key)

    def _begin_task(self, action: _Task, desired: Desired) -> None:
        task = asyncio.create_task(self._work_on(action, desired), name=f"install {action.key}")
        self._tasks[action.key] = task

    async def _work_on(self, action: _Task, desired: Desired) -> None:
        key = action.key
        try:
            await self._carry_out(action, desired)
            self._troubles.pop(key, None)
        except StoreError as exc:
            logger.warning("install.storage model=%s error=%s", key, exc)
            self._troubles[key] = str(exc)
            self._retries.later(key)
        except Exception:  # a defect that one model meets is no reason to leave the others
            logger.exception("install.defect model=%s", key)
            self._troubles[key] = f"{key}: the device failed; its log tells why"
            self._retries.later(key)
        finally:
            del self._tasks[key]
            self._wake.set()

    async def _carry_out(self, action: _Task, desired: Desired) -> None:
        key = action.key
        if isinstance(action, Install):
            await self._install(action.model, desired)
            return
        async with self.slots.lock(key):
            if isinstance(action, Remove):
                self._stop(self.slots[key])
                self.slots.remove(key)
                return
            slot = self._slot_for(action.model)
            if slot.shadow:
                self._stop(slot)
            logger.warning("install.loop_broken model=%s detail=%s", key, action.detail)
            wish = wish_of(desired, action.model)
            self.slots.save(slot.break_loop(action.model.digest, action.detail, wish))

    def _stop(self, slot: Slot) -> None:
        if slot.shadow:
            self._challengers.stop(slot.name)
            return
        self.probations.cancel(slot.key)
        self._serving.stop(slot.key)

    def challenger_failed(self, name: str, detail: str) -> None:
        """A challenger is to go; the model beside it never noticed."""
        key = shadow_key(name)
        task = asyncio.get_running_loop().create_task(self._drop_challenger(key, detail))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)

    async def _drop_challenger(self, key: str, detail: str) -> None:
        async with self.slots.lock(key):
            slot = self.slots.by_key.get(key)
            if slot is None or slot.phase is not Phase.SHADOWING:
                return
            self._stop(slot)
            try:
                now_s = self.slots.now_s()
                self.slots.save(slot.reject("shadow_failed", detail, slot.wish, now_s=now_s))
                self.slots.collect()
            except StoreError as exc:  # it is tried again at the next start
                logger.warning("install.storage model=%s error=%s", key, exc)

    async def _cast_again(self, key: str) -> None:
        """After a start: what was a challenger is one again."""
        try:
            async with self.slots.lock(key):
                await self._challengers.cast(self.slots[key])
        except RejectedError as exc:
            self.challenger_failed(self.slots[key].name, str(exc))
        except Exception:  # a challenger is no reason to leave the others
            logger.exception("install.defect model=%s", key)
            self.challenger_failed(self.slots[key].name, "the device failed; its log tells why")
        finally:
            del self._tasks[key]
            self._wake.set()

    async def _install(self, model: DesiredModel, desired: Desired) -> None:
        key, wish = key_of(model), wish_of(desired, model)
        with self.slots.holding(model.digest):
            async with self.slots.lock(key):
                if not self._is_wanted(model):
                    return
                slot = replace(
                    self._slot_for(model), held_generation=None, hold=Hold.NONE, managed=True
                )
                self._trials.begin(replace(slot, wish=wish), model.digest)
            # Not under the lock: over a slow line this takes hours, and meanwhile a failing version
            # must be rolled back and a file may be installed.
            try:
                fetched = await self._obtainer.fetch(key, model)
                async with self.slots.lock(key):
                    if self._trials.is_fetching(model):  # else `reconcile` decides anew
                        await self._trials.run(model, fetched, wish)
                self._retries.succeeded(key)
            except RejectedError as exc:
                async with self.slots.lock(key):
                    if self._trials.is_fetching(model):
                        self._trials.reject(model, exc, wish)
            except FetchError as exc:
                await self._wait_for_source(model, str(exc))

    async def _wait_for_source(self, model: DesiredModel, detail: str) -> None:
        key = key_of(model)
        if not self._is_wanted(model):
            return
        async with self.slots.lock(key):
            slot = self.slots.by_key.get(key)
            if slot is not None and slot.target == model.digest:
                self.slots.save(replace(slot, detail=detail))
        self._retries.later(key)

    def _is_wanted(self, model: DesiredModel) -> bool:
        if self._desired is None:
            return False
        wanted = wanted_by_key(self._desired, self.slots.by_key).get(key_of(model))
        return wanted is not None and wanted.digest == model.digest

    def _slot_for(self, model: DesiredModel) -> Slot:
        return self.slots.get(model.name, shadow=model.mode is Mode.SHADOW)

    def _note_wishes(self, desired: Desired) -> None:
        """What a failure or a decision counts under, also after a restart."""
        for key, model in wanted_by_key(desired, self.slots.by_key).items():
            slot = self.slots.by_key.get(key)
            if slot is not None and slot.wish != wish_of(desired, model):
                try:
                    self.slots.note(replace(slot, wish=wish_of(desired, model)))
                except StoreError as exc:  # said by whatever comes next
                    logger.warning("install.storage model=%s error=%s", key, exc)

    def _floor_of(self, slot: Slot) -> int:
        models = self._desired.models if self._desired else ()
        active = slot.active.digest if slot.active else ""
        return max((model.floor for model in models if model.digest == active), default=0)
