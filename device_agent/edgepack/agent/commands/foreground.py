"""`edgepack-agent run`."""

import argparse
import asyncio
import gc
import logging
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: what it does is in agent.toml."""


def run(args: argparse.Namespace) -> int:
    """Run the agent until it is told to stop."""
    gc.disable()  # importing makes no garbage worth looking for
    from edgepack.agent.lean import import_paho

    import_paho()
    from edgepack.agent.broker_client import check_files
    from edgepack.agent.compose import Agent
    from edgepack.agent.config import read_config
    from edgepack.agent.log_rate import BoundedRate

    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    if not args.verbose:
        for handler in logging.getLogger().handlers:
            handler.addFilter(BoundedRate())
        logging.getLogger("mqtt").setLevel(logging.CRITICAL)  # the link says it in its own words
    config = read_config(args.config)
    brokers = [config.broker]
    brokers += [one.broker for one in config.input if one.broker is not None]
    brokers += [one.broker for one in config.action if one.broker is not None]
    for broker in brokers:
        check_files(broker)
    agent = Agent(config)
    gc.freeze()  # modules and classes stay for good: the collector need not walk them
    gc.enable()
    asyncio.run(agent.run())
    return 0
