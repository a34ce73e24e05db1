"""What this device has, for `preflight`: disk, memory, classes, engines."""

import contextlib
import logging
import os
import platform
from pathlib import Path
from typing import Protocol

from edgepack.agent.disk import storage_error
from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.preflight import DeviceFacts, EngineFacts
from edgepack.bundle.contract import Contract, Variant
from edgepack.runtime import EngineMissingError, UnsupportedModelError
from edgepack.runtime.engine import Abilities
from edgepack.runtime.engines import engine_named

logger = logging.getLogger(__name__)

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Describer(Protocol):
    """What asks an engine, in a child process: the worker."""

    async def describe_engine(self, engine: str) -> Abilities | None:
        """What it can run; None where it does not tell."""


class Device:
    """Looks at the device.

    Args:
        folder: Where bundles are stored.
        classes: What agent.toml calls the device.
        describer: Asks engines; they stay out of this process until a model needs them.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...], describer: Describer | None) -> None:
        self._folder = folder
        self._classes = frozenset({*classes, platform.machine()})
        self._describer = describer
        self._abilities: dict[str, Abilities | None] = {}

    def space(self) -> DeviceFacts:
        """Disk and memory only.

        Raises:
            StoreError: The disk does not tell.
        """
        try:
            found = os.statvfs(self._folder)
        except OSError as exc:
            raise storage_error(self._folder, exc) from exc
        return DeviceFacts(
            free_bytes=found.f_bavail * found.f_frsize,
            free_inodes=found.f_favail if found.f_files else None,
            memory_bytes=memory_bytes(),
            classes=self._classes,
        )

    async def facts(self, contract: Contract) -> DeviceFacts:
        """Everything that the contract asks about.

        Raises:
            StoreError: The disk does not tell.
        """
        space = self.space()
        engines = {variant.name: await self._engine(variant) for variant in contract.variants}
        return DeviceFacts(
            free_bytes=space.free_bytes,
            free_inodes=space.free_inodes,
            memory_bytes=space.memory_bytes,
            classes=space.classes,
            engines=engines,
        )

    async def _engine(self, variant: Variant) -> EngineFacts:
        try:
            engine_named(variant.engine.engine).check(variant)
        except EngineMissingError as exc:
            return EngineFacts(missing=str(exc))
        except UnsupportedModelError as exc:
            return EngineFacts(unsupported=str(exc))
        return EngineFacts(abilities=await self._ask(variant.engine.engine))

    async def _ask(self, engine: str) -> Abilities | None:
        if engine not in self._abilities and self._describer is not None:
            try:
                self._abilities[engine] = await self._describer.describe_engine(engine)
            except (RejectedError, StoreError) as exc:  # the self-test will see
                logger.warning("preflight.engine_silent engine=%s error=%s", engine, exc)
                return None
        return self._abilities.get(engine)


def memory_bytes() -> int:
    """Memory that this process may use at most: the machine's, or its container's."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no cgroup 2, or "max"
        return min(whole, int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    return whole
