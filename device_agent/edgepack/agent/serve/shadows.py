"""The challengers of this device, at most one beside each model."""

from collections.abc import Callable
from pathlib import Path

from edgepack.agent.config import ProbationConfig, ShadowConfig
from edgepack.agent.errors import RejectedError
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.shadow import Shadow
from edgepack.bundle import BundleError, open_layout
from edgepack.bundle.contract import Contract
from edgepack.runtime.memory import available_bytes

_PROCESS_BYTES = 30_000_000  # private memory of the process around a model; see docs/adr/0013


class Shadows:
    """Starts and ends challengers; the registry gives them what the models are asked.

    Args:
        registry: The models that answer.
        layout: The store.
        config: Bounds of memory and queue.
        limits: How many failures are too many.
        failed: Called with the model's name and a line when a challenger is to go.
    """

    def __init__(
        self,
        registry: Registry,
        layout: Path,
        config: ShadowConfig,
        limits: ProbationConfig,
        *,
        failed: Callable[[str, str], None],
    ) -> None:
        self._registry = registry
        self._layout = layout
        self._config = config
        self._limits = limits
        self._failed = failed

    async def cast(self, slot: Slot) -> None:
        """Let a slot's active bundle see what the model beside it sees, instead of another one.

        Raises:
            RejectedError: It does not fit that model, or does not load.
        """
        if slot.active is None:
            raise ValueError(f"slot {slot.key} has nothing active")
        before = self._registry.mirrors.pop(slot.name, None)
        if before is not None:
            await before.end()
        self._check_fit(slot.name, slot.active)
        shadow = Shadow(
            slot.active,
            self._layout,
            self._config,
            self._limits,
            failed=lambda detail: self._failed(slot.name, detail),
        )
        await shadow.start()
        self._registry.mirrors[slot.name] = shadow

    def stop(self, name: str) -> None:
        """End the challenger beside a model, if there is one."""
        shadow = self._registry.mirrors.pop(name, None)
        if shadow is not None:
            shadow.stop()

    def _check_fit(self, name: str, challenger: Installed) -> None:
        champion = self._registry.get(name)
        if champion is None:
            raise RejectedError("shadow_failed", f"no version of {name} answers")
        try:
            bundle = open_layout(
                self._layout,
                challenger.digest,
                signatures=challenger.signatures,
                hash_blobs=False,
            )
        except BundleError as exc:
            raise RejectedError("shadow_failed", f"it does not load: {exc}") from exc
        needed = int(challenger.self_test.get("memory_mb", 0.0) * 1e6) + _PROCESS_BYTES
        free = available_bytes()
        if free is not None and free < needed:
            raise RejectedError(
                "shadow_failed", f"{needed} bytes of memory must be available, got {free}"
            )
        wanted, got = _inputs(champion.contract), _inputs(bundle.contract)
        if wanted != got:
            raise RejectedError("shadow_failed", f"inputs must be {wanted}, got {got}")


def _inputs(contract: Contract) -> str:
    return ", ".join(
        sorted(f"{spec.name} {spec.datatype.value}[{len(spec.shape)}]" for spec in contract.inputs)
    )
