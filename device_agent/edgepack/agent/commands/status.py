"""`edgepack-agent status`."""

import argparse
import json
from typing import Any

from edgepack.agent.commands.asking import add_json
from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.control import ask
from edgepack.agent.status_line import line_of
from edgepack.trust.decode import encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of status."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show what runs, with or without a running agent."""
    config = read_config(args.config)
    answer = ask(config.state_dir, {"command": "status"})
    models = answer["models"] if answer is not None else _models(config)
    state: dict[str, Any] = {
        "device": config.device,
        "running": answer is not None,
        "connected": bool(answer and answer.get("connected")),
        "models": models,
    }
    for name in ("generation", "root_version", "refused", "notices"):
        if answer is not None and name in answer:
            state[name] = answer[name]
    if args.json:
        print(json.dumps(state))  # noqa: T201
        return 0
    running = "running" if state["running"] else "not running"
    broker = "connected" if state["connected"] else "not connected"
    print(f"device {config.device}: agent {running}, broker {broker}")  # noqa: T201
    for model in models:
        print(line_of(model))  # noqa: T201
    if not models:
        print("no model installed")  # noqa: T201
    for kind, detail in state.get("notices", {}).items():
        print(f"{kind}: {detail}")  # noqa: T201
    if state.get("refused"):
        print(f"refused: {state['refused']}")  # noqa: T201
    return 0


def _models(config: AgentConfig) -> list[dict[str, Any]]:
    from edgepack.agent.install.desires import remembered
    from edgepack.agent.install.journal import Journal
    from edgepack.agent.report.models import reported_models

    path = config.state_dir / "agent.db"
    if not path.exists():
        return []
    journal = Journal(path, read_only=True)
    try:
        models = reported_models(journal.slots().values(), remembered(journal), {})
        return [dict(encode(model)) for model in models]  # type: ignore[arg-type]
    finally:
        journal.close()
