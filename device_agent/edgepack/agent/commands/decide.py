"""`edgepack-agent install`, `rollback`, `release`: what a person at the device decides."""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from edgepack.agent.commands.asking import POLL_S, add_json, ask_patiently, complain, show_model
from edgepack.agent.commands.hand_over import acting_as_agent, handed_over
from edgepack.agent.config import read_config
from edgepack.agent.control import answered, ask
from edgepack.agent.status_line import line_of

_SETTLED = ("probation", "confirmed", "rejected", "rolled_back")


def add_install(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of install."""
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="BUNDLE", help="NAME-VERSION.edgepack"
    )
    parser.add_argument(
        "--offered", metavar="MODEL", help="instead of a file, the version that is offered"
    )
    add_json(parser)


def add_rollback(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of rollback."""
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument(
        "--to",
        metavar="VERSION|DIGEST",
        help="which version (default: the last confirmed one, or an older one)",
    )
    add_json(parser)


def add_release(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of release."""
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    add_json(parser)


def run_install(args: argparse.Namespace) -> int:
    """Install a file, or what is offered."""
    if (args.file is None) == (args.offered is None):
        complain("name either a BUNDLE or --offered MODEL")
        return 2
    if args.offered is not None:
        return _install_offered(args)
    state = read_config(args.config).state_dir
    with handed_over(state, [args.file.absolute()]) as (path,):
        return _decide(args, {"command": "install", "path": str(path)})


def run_rollback(args: argparse.Namespace) -> int:
    """Go back to a version that is on disk."""
    return _decide(args, {"command": "rollback", "model": args.model, "to": args.to})


def run_release(args: argparse.Namespace) -> int:
    """End what holds a model."""
    return _decide(args, {"command": "release", "model": args.model})


def _install_offered(args: argparse.Namespace) -> int:
    """Ask for an offered version, and follow its install; Ctrl-C leaves it to the agent."""
    config = read_config(args.config)
    answer = ask(config.state_dir, {"command": "install_offered", "model": args.offered})
    if answer is None:
        complain("no agent runs that could fetch it")
        return 7
    if "error" in answer:
        return show_model(args, answer, refused=False)
    digest, told = answer["digest"], ""
    while True:
        status = ask(config.state_dir, {"command": "status"})
        models = status["models"] if status is not None else []
        model = next((one for one in models if one["name"] == args.offered), None)
        if model is None:
            complain("the agent stopped, or it is not offered now")
            return 8
        line = line_of(model)
        if line != told and not args.json:
            told = line
            print(line, flush=True)
        if model["target"] == digest and model["phase"] in _SETTLED:
            return show_model(args, {"model": model}, refused=True, quiet=not args.json)
        time.sleep(POLL_S)


def _decide(args: argparse.Namespace, request: dict[str, Any]) -> int:
    """Have a decision carried out, by the running agent or, if there is none, here."""
    config = read_config(args.config)
    answer = ask_patiently(config, request)
    running = answer is not None
    if answer is None:
        from edgepack.agent.alone import carry_out

        with acting_as_agent(config.state_dir):
            answer = asyncio.run(answered(carry_out(config, request)))
    return show_model(args, answer, refused=request["command"] == "install", running=running)
