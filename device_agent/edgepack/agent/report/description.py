"""What this device is: hardware, system, versions, engines."""

import contextlib
import os
import platform

from edgepack.agent.config import AgentConfig
from edgepack.runtime import EngineMissingError
from edgepack.runtime.engines import engine_named, engine_names
from edgepack.runtime.version import version_of
from edgepack.wire.messages import Info


def describe(config: AgentConfig, instance: str) -> Info:
    """Look around.

    Args:
        config: Gives id and tags.
        instance: Random id of this installation.
    """
    engines: dict[str, str] = {}
    for name in engine_names():
        with contextlib.suppress(EngineMissingError):
            engines |= engine_named(name).versions()
    return Info(
        device=config.device,
        agent_version=version_of("edgepack"),
        instance=instance,
        tags=config.tags,
        machine=platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        engines=engines,
    )
