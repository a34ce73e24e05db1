"""The `edgepack-agent` command."""

import argparse
import asyncio
import gc
import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.disk import LOCK_NAME, is_locked
from edgepack.agent.status_line import line_of
from edgepack.trust.decode import encode
from edgepack.trust.errors import EdgepackError

_SETTLED = ("probation", "confirmed", "rejected", "rolled_back")
_POLL_S = 0.3
_STARTING_S = 10.0  # an agent that holds the state folder answers by then
DEFAULT_CONFIG = "/etc/edgepack/agent.toml"
_EPILOG = """exit codes:
  0 done   1 a defect of edgepack   2 usage or agent.toml   4 bad bundle   5 not trusted
  7 network   8 rejected or rolled back   9 disk   130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    args = _parser().parse_args(argv)
    try:
        return _COMMANDS[args.command](args)
    except EdgepackError as exc:
        if args.verbose:
            traceback.print_exc()
        sys.stderr.write(f"edgepack-agent: error: {exc}\n")
        return exc.exit_code
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    gc.disable()  # importing makes no garbage worth looking for
    from edgepack.agent.compose import Agent
    from edgepack.agent.link import check_files

    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    config = read_config(args.config)
    check_files(config.broker)
    agent = Agent(config)
    gc.freeze()  # modules and classes stay for good: the collector need not walk them
    gc.enable()
    asyncio.run(agent.run())
    return 0


def _install(args: argparse.Namespace) -> int:
    if (args.file is None) == (args.offered is None):
        sys.stderr.write("edgepack-agent: error: name either a BUNDLE or --offered MODEL\n")
        return 2
    if args.offered is not None:
        return _install_offered(args)
    path = args.file.absolute()
    return _decide(args, {"command": "install", "path": str(path)})


def _install_offered(args: argparse.Namespace) -> int:
    """Ask for an offered version, and follow its install; Ctrl-C leaves it to the agent."""
    from edgepack.agent.control import ask

    config = read_config(args.config)
    answer = ask(config.state_dir, {"command": "install_offered", "model": args.offered})
    if answer is None:
        sys.stderr.write("edgepack-agent: error: no agent runs that could fetch it\n")
        return 7
    if "error" in answer:
        return _show(args, answer, refused=False)
    digest, told = answer["digest"], ""
    while True:
        status = ask(config.state_dir, {"command": "status"})
        models = status["models"] if status is not None else []
        model = next((one for one in models if one["name"] == args.offered), None)
        if model is None:
            sys.stderr.write("edgepack-agent: error: the agent stopped, or it is not offered now\n")
            return 8
        line = line_of(model)
        if line != told and not args.json:
            told = line
            print(line, flush=True)  # noqa: T201 (the command's output)
        if model["target"] == digest and model["phase"] in _SETTLED:
            return _show(args, {"model": model}, refused=True, quiet=not args.json)
        time.sleep(_POLL_S)


def _rollback(args: argparse.Namespace) -> int:
    return _decide(args, {"command": "rollback", "model": args.model, "to": args.to})


def _release(args: argparse.Namespace) -> int:
    return _decide(args, {"command": "release", "model": args.model})


def _ask_patiently(config: AgentConfig, request: dict[str, Any]) -> dict[str, Any] | None:
    """Ask the running agent, also one that has just begun to start; None when none runs."""
    from edgepack.agent.control import ask

    deadline = time.monotonic() + _STARTING_S
    while (answer := ask(config.state_dir, request)) is None:
        if not is_locked(config.state_dir / LOCK_NAME) or time.monotonic() > deadline:
            return None
        time.sleep(_POLL_S)
    return answer


def _decide(args: argparse.Namespace, request: dict[str, Any]) -> int:
    """Have a decision carried out, by the running agent or, if there is none, here."""
    from edgepack.agent.control import answered

    config = read_config(args.config)
    answer = _ask_patiently(config, request)
    if answer is None:
        from edgepack.agent.compose import decide_alone

        answer = asyncio.run(answered(decide_alone(config, request)))
    return _show(args, answer, refused=request["command"] == "install")


def _show(
    args: argparse.Namespace, answer: dict[str, Any], *, refused: bool, quiet: bool = False
) -> int:
    """Print an answer; the exit code. `refused`: a phase that is a refusal counts as one."""
    if args.json:
        print(json.dumps(answer))  # noqa: T201 (the command's output)
    if "error" in answer:
        if not args.json:
            reason = f"{answer['reason']}: " if "reason" in answer else ""
            sys.stderr.write(f"edgepack-agent: error: {reason}{answer['error']}\n")
        return int(answer["exit_code"])
    model = answer["model"]
    if not args.json and not quiet:
        print(line_of(model))  # noqa: T201
    return 8 if refused and model["phase"] in ("rejected", "rolled_back") else 0


def _root(args: argparse.Namespace) -> int:
    from edgepack.agent.control import answered

    config = read_config(args.config)
    paths = [path.absolute() for path in args.files]
    request = {"command": "root", "paths": [str(path) for path in paths]}
    answer = _ask_patiently(config, request)
    if answer is None:
        from edgepack.agent.compose import root_alone

        answer = asyncio.run(answered(root_alone(config, paths)))
    if args.json:
        print(json.dumps(answer))  # noqa: T201 (the command's output)
    if "error" in answer:
        if not args.json:
            sys.stderr.write(f"edgepack-agent: error: {answer['error']}\n")
        return int(answer["exit_code"])
    if not args.json:
        print(f"root.json version {answer['root_version']}")  # noqa: T201
    return 0


def _audit(args: argparse.Namespace) -> int:
    from edgepack.agent.install.journal import Journal
    from edgepack.agent.install.sealing import PUBLIC_KEY

    config = read_config(args.config)
    if args.publish:
        return _publish_audit(config)
    journal = Journal(config.state_dir / "agent.db", read_only=True)
    try:
        if args.key:
            print((journal.meta(PUBLIC_KEY) or b"").decode() or "no key yet: run the agent")  # noqa: T201
            return 0
        entries = journal.chain.kept()
        checkpoint = journal.chain.checkpoint()
    finally:
        journal.close()
    signed = [entry.envelope for entry in entries if entry.envelope is not None]
    lines = [checkpoint, *signed] if checkpoint is not None else signed
    for line in lines:
        print(line.decode())  # noqa: T201 (the command's output)
    if len(signed) < len(entries):
        sys.stderr.write(
            f"edgepack-agent: {len(entries) - len(signed)} events are not signed yet; "
            "a running agent signs them\n"
        )
    return 0


def _publish_audit(config: AgentConfig) -> int:
    from edgepack.agent.control import ask

    answer = ask(config.state_dir, {"command": "audit_publish"})
    if answer is None or "error" in answer:
        reason = "no agent runs that could publish" if answer is None else answer["error"]
        sys.stderr.write(f"edgepack-agent: error: {reason}\n")
        return 7 if answer is None else int(answer["exit_code"])
    print(f"events up to {answer['events']} are published again")  # noqa: T201
    return 0


def _status(args: argparse.Namespace) -> int:
    from edgepack.agent.control import ask

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgepack-agent",
        description="Install model bundles safely, run them, report over MQTT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="agent.toml (default: %(default)s)",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="debug log, tracebacks")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    verbs.add_parser("run", parents=[common], help="run the agent in the foreground")
    install = verbs.add_parser(
        "install", parents=[common], help="install a bundle from a file, network or not"
    )
    install.add_argument(
        "file", type=Path, nargs="?", metavar="BUNDLE", help="NAME-VERSION.edgepack"
    )
    install.add_argument(
        "--offered", metavar="MODEL", help="instead of a file, the version that is offered"
    )
    install.add_argument("--json", action="store_true", help="print one JSON object")
    root = verbs.add_parser(
        "root", parents=[common], help="follow the root of trust by hand, network or not"
    )
    root.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="the next versions of root.json; none only shows which version is followed",
    )
    root.add_argument("--json", action="store_true", help="print one JSON object")
    audit = verbs.add_parser(
        "audit", parents=[common], help="print this device's signed history as JSON lines"
    )
    audit.add_argument(
        "--key", action="store_true", help="print only the public key that signs it, in hex"
    )
    rollback = verbs.add_parser(
        "rollback",
        parents=[common],
        help="go back to a version that is on disk; stands until the desired state changes",
    )
    rollback.add_argument("model", metavar="MODEL", help="the model's name")
    rollback.add_argument(
        "--to",
        metavar="VERSION|DIGEST",
        help="which version (default: the last confirmed one, or the one before it)",
    )
    rollback.add_argument("--json", action="store_true", help="print one JSON object")
    release = verbs.add_parser(
        "release",
        parents=[common],
        help="end what holds a model, and let versions that failed be tried again",
    )
    release.add_argument("model", metavar="MODEL", help="the model's name")
    release.add_argument("--json", action="store_true", help="print one JSON object")
    audit.add_argument(
        "--publish",
        action="store_true",
        help="have the running agent publish the last events again, after the broker lost them",
    )
    status = verbs.add_parser("status", parents=[common], help="show what runs on this device")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


_COMMANDS = {
    "run": _run,
    "install": _install,
    "rollback": _rollback,
    "release": _release,
    "root": _root,
    "audit": _audit,
    "status": _status,
}

if __name__ == "__main__":
    sys.exit(main())
