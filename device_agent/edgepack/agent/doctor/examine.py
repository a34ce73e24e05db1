"""All checks, in the order in which a person would ask."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgepack.agent.config import read_config
from edgepack.agent.doctor.broker import check_agent, check_broker
from edgepack.agent.doctor.feeds import check_feeds
from edgepack.agent.doctor.files import check_permissions
from edgepack.agent.doctor.finding import Finding, fail, ok
from edgepack.agent.doctor.machine import check_clock, check_disk, check_versions
from edgepack.agent.doctor.models import check_engines, check_models
from edgepack.agent.doctor.patient import Patient, admit
from edgepack.agent.doctor.service import check_process, check_service
from edgepack.agent.doctor.trust import check_desired, check_trust
from edgepack.agent.errors import ConfigError
from edgepack.trust.errors import EdgepackError
from edgepack.wire.installation import Installation

Check = Callable[[Patient], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_versions,
    check_process,
    check_service,
    check_clock,
    check_disk,
    check_permissions,
    check_trust,
    check_broker,
    check_agent,
    check_feeds,
    check_desired,
    check_engines,
    check_models,
)


def examine(
    config_path: Path,
    installation: Installation,
    *,
    now_s: Callable[[], float] = time.time,
    checks: Sequence[Check] = CHECKS,
) -> Iterator[Finding]:
    """Look at everything; a finding as soon as it is there.

    Args:
        config_path: agent.toml.
        installation: Where a service and releases would be.
        now_s: The clock, in seconds since 1970.
        checks: What to look at.
    """
    try:
        config = read_config(config_path)
    except ConfigError as exc:
        yield fail("config", str(exc), "`edgepack-agent init` writes one that holds")
        return
    yield ok("config", f"{config_path}, device {config.device}")
    patient = admit(config, config_path, installation, now_s())
    for check in checks:
        try:
            yield from check(patient)
        except (EdgepackError, OSError) as exc:  # what a check did not expect is found as well
            yield fail(check.__name__.removeprefix("check_"), str(exc), "look into it")
