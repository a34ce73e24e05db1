"""What a person decides on the device while no agent runs; the next start goes on from there."""

from typing import Any

from edgepack.agent.compose import Agent
from edgepack.agent.config import AgentConfig


async def carry_out(config: AgentConfig, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command of the control socket: a decision of `Decisions.local`, or "root".

    Args:
        config: agent.toml.
        request: As it goes over the socket.

    Returns:
        The answer, as the socket would give it.

    Raises:
        EdgepackError: As `ByHand`, and as `Roots.take_files`.
    """
    agent = Agent(config)
    try:
        await agent.start()
        return await {**agent.decisions.local(), "root": agent.root}[request["command"]](request)
    finally:
        agent.close()
