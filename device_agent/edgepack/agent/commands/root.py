"""`edgepack-agent root`."""

import argparse
import asyncio
import json
from pathlib import Path

from edgepack.agent.commands.asking import add_json, ask_patiently, complain
from edgepack.agent.commands.hand_over import acting_as_agent, handed_over
from edgepack.agent.config import read_config
from edgepack.agent.control import answered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of root."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="the next versions of root.json; none only shows which version is followed",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Follow the next roots, by the running agent or, if there is none, here."""
    config = read_config(args.config)
    with handed_over(config.state_dir, [path.absolute() for path in args.files]) as paths:
        request = {"command": "root", "paths": [str(path) for path in paths]}
        answer = ask_patiently(config, request)
        if answer is None:
            from edgepack.agent.alone import carry_out

            with acting_as_agent(config.state_dir):
                answer = asyncio.run(answered(carry_out(config, request)))
    if args.json:
        print(json.dumps(answer))
    if "error" in answer:
        if not args.json:
            complain(answer["error"])
        return int(answer["exit_code"])
    if not args.json:
        print(f"root.json version {answer['root_version']}")
    return 0
