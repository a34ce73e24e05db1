"""How a command speaks with the running agent, and with the person who called it."""

import argparse
import json
import sys
import time
from typing import Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.control import ANSWER_TIMEOUT_S, ask
from edgepack.agent.disk import LOCK_NAME, is_locked
from edgepack.agent.status_line import line_of

POLL_S = 0.3
_STARTING_S = 10.0  # an agent that holds the state folder answers by then


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def ask_patiently(
    config: AgentConfig, request: dict[str, Any], *, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any] | None:
    """Ask the running agent, also one that has just begun to start; None when none runs.

    Raises:
        StoreError: It runs but gives no answer.
    """
    deadline = time.monotonic() + _STARTING_S
    while (answer := ask(config.state_dir, request, timeout_s=timeout_s)) is None:
        if not is_locked(config.state_dir / LOCK_NAME) or time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)
    return answer


def complain(message: str) -> None:
    """Say what is wrong, in one line."""
    sys.stderr.write(f"edgepack-agent: error: {message}\n")


def show_model(
    args: argparse.Namespace,
    answer: dict[str, Any],
    *,
    refused: bool,
    quiet: bool = False,
    running: bool = True,
) -> int:
    """Print an answer about a model; the exit code.

    Args:
        args: Has `json`.
        answer: `model`, or `error` with `exit_code`.
        refused: Whether a phase that is a refusal counts as one.
        quiet: Whether its line was printed already.
        running: Whether it was the running agent that answered.
    """
    if args.json:
        print(json.dumps(answer))
    if "error" in answer:
        if not args.json:
            reason = f"{answer['reason']}: " if "reason" in answer else ""
            complain(f"{reason}{answer['error']}")
        return int(answer["exit_code"])
    model = answer["model"]
    if not args.json and not quiet:
        print(line_of(model, running=running))
    return 8 if refused and model["phase"] in ("rejected", "rolled_back") else 0
