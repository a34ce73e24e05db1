"""What is known about this device's models, from the running agent or from its state folder."""

import contextlib
from dataclasses import field
from typing import Any

from edgepack.agent.commands.asking import ask_patiently
from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.desires import remembered
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.spare import DATABASE
from edgepack.agent.report.models import reported_models
from edgepack.trust.decode import encode
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is to show.

    Attributes:
        answer: What the running agent answered to `status`, or None when none runs.
        models: Each a `ReportedModel`, as JSON has it.
        since_ms: When each model's phase was entered, in ms since 1970.
    """

    answer: dict[str, Any] | None
    models: list[dict[str, Any]]
    since_ms: dict[str, int] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether an agent runs."""
        return self.answer is not None


def look(config: AgentConfig) -> Known:
    """Ask the running agent, or read what it left.

    Raises:
        StoreError: It runs but does not answer, or the state folder cannot be read.
    """
    answer = ask_patiently(config, {"command": "status"})
    models = answer["models"] if answer is not None else []
    path = config.state_dir / DATABASE
    if not path.exists():
        return Known(answer=answer, models=models)
    try:
        with contextlib.closing(Journal(path, read_only=True)) as journal:
            if answer is None:
                found = reported_models(journal.slots().values(), remembered(journal), {})
                models = [dict(encode(model)) for model in found]  # type: ignore[arg-type]
            return Known(answer=answer, models=models, since_ms=journal.entered_ms())
    except StoreError:
        if answer is None:
            raise
        return Known(answer=answer, models=models)  # the agent has it for itself
