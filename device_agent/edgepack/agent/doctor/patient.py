"""What all checks look at, read once."""

import contextlib
from dataclasses import field
from pathlib import Path
from typing import Any

from edgepack.agent.commands.asking import ask_patiently
from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.clock import DeviceClock, Evidence, Verdict, judge
from edgepack.agent.install.desires import remembered
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.slot import Installed
from edgepack.agent.install.spare import DATABASE
from edgepack.trust.values import dataclass
from edgepack.wire.desired import Desired
from edgepack.wire.installation import Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the journal remembers.

    Attributes:
        instance: Random id of this installation; "" before the first start.
        generation: Of the desired state that was accepted last; 0 for none.
        desired: That state.
        installed: What answers, by model.
        bundles: Every bundle that must be on disk: digest → name and version.
        damage: Why it cannot be read, or "".
    """

    instance: str = ""
    generation: int = 0
    desired: Desired | None = None
    installed: dict[str, Installed] = field(default_factory=dict)
    bundles: dict[str, str] = field(default_factory=dict)
    damage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A device.

    Attributes:
        config: agent.toml.
        config_path: Where that is.
        installation: Where the rest is, if `edgepack setup` or a package put it there.
        answer: What the running agent says, or None when none runs or answers.
        silence: Why an agent that runs does not answer, or "".
        memory: What the journal remembers.
        clock: What the clock is worth.
    """

    config: AgentConfig
    config_path: Path
    installation: Installation
    answer: dict[str, Any] | None
    silence: str
    memory: Memory
    clock: Verdict


def admit(
    config: AgentConfig, config_path: Path, installation: Installation, now_s: float
) -> Patient:
    """Read everything that several checks need."""
    answer, silence = None, ""
    try:
        answer = ask_patiently(config, {"command": "status"}, timeout_s=30.0)
    except StoreError as exc:
        silence = str(exc)
    memory, clock = _read_journal(config.state_dir / DATABASE, now_s)
    return Patient(
        config=config,
        config_path=config_path,
        installation=installation,
        answer=answer,
        silence=silence,
        memory=memory,
        clock=clock,
    )


def _read_journal(path: Path, now_s: float) -> tuple[Memory, Verdict]:
    nothing = judge(now_s, Evidence())
    try:
        if not path.exists():
            return Memory(), nothing
        with contextlib.closing(Journal(path, read_only=True)) as journal:
            slots = journal.slots()
            kept = [one for slot in slots.values() for one in slot.kept()]
            stored = journal.bundles()
            names = {digest: f"{one.name} {one.version}" for digest, one in stored.items()}
            memory = Memory(
                instance=(journal.meta("instance") or b"").decode(),
                generation=journal.generation(),
                desired=remembered(journal),
                installed={s.key: s.active for s in slots.values() if s.active is not None},
                bundles={one.digest: names.get(one.digest, one.release.version) for one in kept},
            )
            return memory, DeviceClock(journal, wall=lambda: now_s).verdict()
    except (StoreError, OSError) as exc:
        return Memory(damage=str(exc)), nothing
