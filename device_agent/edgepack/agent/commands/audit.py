"""`edgepack-agent audit`."""

import argparse
import sys

from edgepack.agent.commands.asking import complain
from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.control import ask
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.sealing import PUBLIC_KEY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of audit."""
    parser.add_argument(
        "--key", action="store_true", help="print only the public key that signs it, in hex"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="have the running agent publish the last events again, after the broker lost them",
    )


def run(args: argparse.Namespace) -> int:
    """Print the history, or its key."""
    config = read_config(args.config)
    if args.publish:
        return _publish(config)
    journal = Journal(config.state_dir / "agent.db", read_only=True)
    try:
        if args.key:
            print((journal.meta(PUBLIC_KEY) or b"").decode() or "no key yet: run the agent")
            return 0
        entries = journal.chain.kept()
        checkpoint = journal.chain.checkpoint()
    finally:
        journal.close()
    signed = [entry.envelope for entry in entries if entry.envelope is not None]
    lines = [checkpoint, *signed] if checkpoint is not None else signed
    for line in lines:
        print(line.decode())
    if len(signed) < len(entries):
        sys.stderr.write(
            f"edgepack-agent: {len(entries) - len(signed)} events are not signed yet; "
            "a running agent signs them\n"
        )
    return 0


def _publish(config: AgentConfig) -> int:
    answer = ask(config.state_dir, {"command": "audit_publish"})
    if answer is None or "error" in answer:
        complain("no agent runs that could publish" if answer is None else answer["error"])
        return 7 if answer is None else int(answer["exit_code"])
    print(f"events up to {answer['events']} are published again")
    return 0
