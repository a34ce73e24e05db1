"""`edgepack-agent status` and `models`: what runs here, for a person or a script."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from edgepack.agent.commands.asking import add_json
from edgepack.agent.commands.known import Known, look
from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.status_line import line_of

_HEAD = ("MODEL", "VERSION", "VARIANT", "PHASE", "SIZE", "LATENCY", "MEMORY", "SINCE")
_NONE = "-"
_NOT_RUNNING = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of status."""
    parser.add_argument(
        "--running", action="store_true", help="end with 7 where no agent runs: for a health check"
    )
    add_json(parser)


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of models."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show what runs, with or without a running agent."""
    config = read_config(args.config)
    known = look(config)
    answer = known.answer or {}
    state: dict[str, Any] = {
        "device": config.device,
        "running": known.running,
        "connected": bool(answer.get("connected")),
        "models": known.models,
    }
    names = ("agent", "serving", "generation", "root_version", "refused", "notices")
    state |= {name: answer[name] for name in names if name in answer}
    code = _NOT_RUNNING if args.running and not known.running else 0
    if args.json:
        print(json.dumps(state))
        return code
    print(f"device {config.device}: {_agent(answer)}, {_broker(config, known)}")
    for model in known.models:
        print(line_of(model, running=known.running))
    if not known.models:
        print("no model installed")
    for kind, detail in state.get("notices", {}).items():
        print(f"{kind}: {detail}")
    if state.get("refused"):
        print(f"refused: {state['refused']}")
    return code


def run_models(args: argparse.Namespace) -> int:
    """Show the models as a table, or each with its figures as JSON."""
    config = read_config(args.config)
    known = look(config)
    facts = [_facts(config, known, model) for model in known.models]
    if args.json:
        print(json.dumps({"running": known.running, "models": facts}))
        return 0
    if not facts:
        print("no model installed")
        return 0
    _table(_HEAD, [_row(fact) for fact in facts])
    if not known.running:
        sys.stderr.write("edgepack-agent: no agent runs: none of them answers now\n")
    return 0


def _agent(answer: dict[str, Any]) -> str:
    agent = answer.get("agent")
    if agent is None:
        return "agent running" if answer else "agent not running"
    release = f"{agent['release']}, " if agent.get("release") else ""
    up, memory = _duration(agent["uptime_s"]), _size(agent["memory_bytes"])
    return f"agent running ({release}up {up}, {memory})"


def _broker(config: AgentConfig, known: Known) -> str:
    if config.broker.url is None:
        return "no broker configured"
    return "broker connected" if (known.answer or {}).get("connected") else "broker not connected"


def _facts(config: AgentConfig, known: Known, model: dict[str, Any]) -> dict[str, Any]:
    """One model, flat; a figure that is not known is left out."""
    active, name = model.get("active") or {}, model["name"]
    tested = model.get("self_test", {})
    live = (known.answer or {}).get("serving", {}).get(name, {})
    found = {
        "model": name,
        "version": active.get("version"),
        "digest": active.get("digest"),
        "variant": model.get("variant") or None,
        "phase": model["phase"],
        "size_bytes": _bundle_bytes(config, active.get("digest")),
        "latency_ms": live.get("p50_ms", tested.get("p50_ms")),
        "memory_mb": tested.get("memory_mb"),
        "since_ms": known.since_ms.get(name),
        "requests": live.get("requests"),
        "failures": live.get("failures"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _bundle_bytes(config: AgentConfig, digest: str | None) -> int | None:
    """What an installed bundle takes on disk; parts that it shares with another count too."""
    if digest is None:
        return None
    from edgepack.bundle import BundleError, open_layout

    with contextlib.suppress(BundleError, OSError):
        return open_layout(config.state_dir / "store", digest, hash_blobs=False).size_bytes
    return None


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    latency, memory, since = (facts.get(key) for key in ("latency_ms", "memory_mb", "since_ms"))
    return (
        facts["model"],
        facts.get("version", _NONE),
        facts.get("variant", _NONE),
        facts["phase"],
        _size(facts["size_bytes"]) if "size_bytes" in facts else _NONE,
        _NONE if latency is None else f"{latency:.3g} ms",
        _NONE if memory is None else f"{memory:.1f} MB",
        _NONE if since is None else _day(since),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _day(since_ms: int) -> str:
    return f"{datetime.fromtimestamp(since_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} MB"


def _duration(seconds: float) -> str:
    minutes, days = int(seconds // 60), int(seconds // 86_400)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if days < 1:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{days} d {minutes // 60 % 24} h"
