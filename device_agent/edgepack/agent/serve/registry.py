"""The models that answer now, and the threads that run them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgepack.agent.config import DriftConfig
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.serve.marks import EngineMarks, Mark
from edgepack.agent.serve.served import ServedModel
from edgepack.bundle import open_layout
from edgepack.runtime import Model, load
from edgepack.runtime.tensors import Array
from edgepack.wire.messages import Scalar

if TYPE_CHECKING:
    from edgepack.monitor import DriftDetector

logger = logging.getLogger(__name__)

_THREADS = 2


class Mirror(Protocol):
    """What sees what a model is asked and answers: a challenger."""

    installed: Installed
    requests: int
    dropped: int
    errors: int

    def offer(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take one request and its answer; returns at once."""

    def figures(self) -> dict[str, float]:
        """How it compares, so far."""

    def metrics(self) -> dict[str, Scalar | None]:
        """The same, and counts, flat."""

    def stop(self) -> None:
        """End it."""

    async def end(self) -> None:
        """End it, and return when its memory is free again."""


class Registry:
    """Swaps models in and out without dropping a request.

    A request that began on the old model ends on it: the old session is closed when its last
    user lets go.

    Args:
        drift: Settings of the drift alarm.
        trusted_truths: Whether truths may count for or against a version.
        marks: Tell the next start whose engine was at work, if this one dies.

    Attributes:
        mirrors: Challengers by the name of the model beside them.
        input_figures: Flat figures of what feeds a model and follows from it, by its name.
        changed: Each is called with the name of a model that answers anew, or no longer.
        distrusts_disk: After an unclean stop: what is mapped is hashed before it is used. The
            rest is read, and what is read is always hashed.
    """

    def __init__(
        self,
        drift: DriftConfig,
        *,
        trusted_truths: bool = False,
        marks: EngineMarks | None = None,
    ) -> None:
        self._marks = marks
        self._drift = drift
        self.distrusts_disk = False
        self._trusted_truths = trusted_truths
        self._served: dict[str, ServedModel] = {}
        self.mirrors: dict[str, Mirror] = {}
        self.input_figures: Callable[[str], Mapping[str, Scalar | None]] = lambda _: {}
        self.changed: list[Callable[[str], None]] = []
        self.executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="infer")

    def get(self, name: str) -> ServedModel | None:
        """The model that answers under that name, or None."""
        return self._served.get(name)

    def all(self) -> dict[str, ServedModel]:
        """Every model that answers, by name."""
        return dict(self._served)

    async def serve(self, slot: Slot, layout: Path) -> None:
        """Load the slot's active bundle and let it answer, instead of what answered before.

        Raises:
            EdgepackError: It does not load; what answered before goes on.
        """
        if slot.active is None:
            raise ValueError(f"slot {slot.name} has nothing active")
        loop = asyncio.get_running_loop()
        # what is proven is not suspected, and need not be marked
        mark = self._marks.of(slot.name) if self._marks is not None and slot.is_unproven else None
        work = partial(_load, slot.active, layout, mark=mark, hash_mapped=self.distrusts_disk)
        # not behind the requests: they may wait for the very model that is to go, for it is slow
        model, reference = await asyncio.to_thread(work)
        served = ServedModel(slot.active, model, trusted_truths=self._trusted_truths, mark=mark)
        self._served[slot.name] = served
        self._tell(slot.name)
        if reference is not None:  # answering does not wait for it
            loop.create_task(self._watch_drift(served, reference)).add_done_callback(_check)

    def stop(self, name: str) -> None:
        """Stop answering for a model."""
        self._served.pop(name, None)
        self._tell(name)

    def _tell(self, name: str) -> None:
        for changed in self.changed:
            try:
                changed(name)
            except Exception:  # a defect of who listens must not cost the model
                logger.exception("model.defect name=%s", name)

    def mirror(self, name: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Let a challenger, if there is one, see a request that was answered."""
        mirror = self.mirrors.get(name)
        if mirror is not None:
            mirror.offer(inputs, outputs)

    def counters(self, name: str) -> ServedModel | None:
        """The counters of the model that answers now, or None."""
        return self._served.get(name)

    async def _watch_drift(self, served: ServedModel, reference: bytes) -> None:
        try:
            detector = await asyncio.to_thread(_make_detector, reference, self._drift)
        except ValueError as exc:
            logger.warning("drift.off digest=%s error=%s", served.installed.digest, exc)
            return
        served.watch_drift(detector)

    def close(self) -> None:
        """Let running requests end, then stop the threads and the challengers."""
        for mirror in self.mirrors.values():
            mirror.stop()
        self.executor.shutdown(wait=True)


def _make_detector(reference: bytes, config: DriftConfig) -> "DriftDetector":
    from edgepack.monitor.drift import DriftDetector

    return DriftDetector(
        reference, window=config.window, alpha=config.alpha, consecutive=config.consecutive
    )


def _check(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("drift.defect", exc_info=task.exception())


def _load(
    installed: Installed, layout: Path, *, mark: Mark | None = None, hash_mapped: bool = True
) -> tuple[Model, bytes | None]:
    bundle = open_layout(
        layout, installed.digest, signatures=installed.signatures, hash_blobs=False
    )
    with mark or contextlib.nullcontext():
        model = load(
            bundle, variant=installed.variant, options=installed.options, hash_mapped=hash_mapped
        )
    reference = bundle.contract.reference
    return model, bundle.read(reference) if reference else None
