"""Whether the agent that runs does well: it answers, serves what was served, and stays."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepack.agent.control import ask
from edgepack.agent.errors import StoreError
from edgepack.trust.errors import KeyFileError
from edgepack.trust.key_files import read_small
from edgepack.trust.values import dataclass

EVIDENCE = "release-healthy"  # in the state folder: the release that ran well for a while
EVIDENCE_AFTER_S = 60.0
_LOOK_S = 0.5
_ANSWER_S = 10.0
_MAX_NAME_BYTES = 200

Ask = Callable[[], dict[str, Any] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must be so for an agent to be healthy.

    Attributes:
        release: Name of the release that must answer; "" for any.
        models: Names of the models that must answer.
        connected: Whether the broker must be connected.
    """

    release: str = ""
    models: frozenset[str] = frozenset()
    connected: bool = False


def expected_after(status: dict[str, Any] | None, release: str) -> Expected:
    """What a new release must do as well as the one that answered before."""
    if status is None:
        return Expected(release=release)
    models = frozenset(model["name"] for model in status["models"] if model.get("active"))
    serving = status.get("serving")
    return Expected(
        release=release,
        models=models if serving is None else models & serving.keys(),
        connected=bool(status.get("connected")),
    )


def shortcoming(status: dict[str, Any] | None, expected: Expected) -> str:
    """What is not as it must be, in one line; "" when all is. Pure."""
    if status is None:
        return "it does not answer"
    release = status.get("agent", {}).get("release", "")
    if expected.release and release != expected.release:
        return f"release {release or 'unknown'} answers instead of {expected.release}"
    missing = sorted(expected.models - status.get("serving", {}).keys())
    if missing:
        return f"{', '.join(missing)} does not answer any more"
    if expected.connected and not status.get("connected"):
        return "the broker is not connected any more"
    return ""


def watch(ask_status: Ask, expected: Expected, *, timeout_s: float, steady_s: float) -> str:
    """Wait until an agent is healthy and stays so; what it lacks in the end, or "".

    Args:
        ask_status: Asks the running agent; None when none answers.
        expected: What must be so.
        timeout_s: How long it may take, in seconds.
        steady_s: For how long one and the same process must do well, in seconds.
    """
    deadline = time.monotonic() + timeout_s
    well_since, well_pid = 0.0, None
    while True:
        status = ask_status()
        lacks, now = shortcoming(status, expected), time.monotonic()
        pid = status.get("agent", {}).get("pid") if status is not None else None
        if lacks:
            well_pid = None
        elif pid != well_pid:
            well_since, well_pid = now, pid
        if well_pid is not None and now - well_since >= steady_s:
            return ""
        if now > deadline:
            return lacks or "it does not stay: it is started again and again"
        time.sleep(_LOOK_S)


def asker(state: Path) -> Ask:
    """Asks the agent of a state folder."""

    def ask_status() -> dict[str, Any] | None:
        try:
            return ask(state, {"command": "status"}, timeout_s=_ANSWER_S)
        except StoreError:  # it died while it was asked
            return None

    return ask_status


def healthy_release(state: Path) -> str:
    """The release that ran well for a while, as it said itself; "" for none."""
    try:
        data = read_small(state / EVIDENCE, max_bytes=_MAX_NAME_BYTES)
    except KeyFileError:
        return ""
    return data.decode("ascii", "replace").strip()
