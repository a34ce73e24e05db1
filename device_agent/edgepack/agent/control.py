"""The agent's own door: a unix socket in its state folder, for whoever may open it.

`edgepack-agent install` speaks to a running agent through it. One JSON line in, one JSON line out.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from edgepack.agent.decisions import Command
from edgepack.agent.errors import DecisionError, RejectedError, StoreError
from edgepack.trust.errors import EdgepackError

logger = logging.getLogger(__name__)

SOCKET_NAME = "agent.sock"
_MAX_LINE_BYTES = 16 * 1024
ANSWER_TIMEOUT_S = 600.0
_RETRY_S = 30.0


class ControlServer:
    """Answers commands on the socket.

    Args:
        state_dir: Where the socket is made, mode 0600.
        commands: Name → coroutine that takes the request and gives the answer.
    """

    def __init__(self, state_dir: Path, commands: Mapping[str, Command]) -> None:
        self._path = state_dir / SOCKET_NAME
        self._commands = commands

    async def run(self) -> None:
        """Listen until cancelled; without the socket only the commands are missing."""
        while True:
            try:
                await self._listen()
            except OSError as exc:
                logger.warning("control.unusable error=%s", exc)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._serve, path=self._path, limit=_MAX_LINE_BYTES
        )
        self._path.chmod(0o600)
        try:
            await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(await reader.readline())
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError) as exc:  # ValueError: a line over the limit
            logger.warning("control.broken error=%s", exc)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = self._commands[request["command"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown command", "exit_code": 2}
        return await answered(command(request))


async def answered(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The answer of a command, or its error as one: `error`, `exit_code`, perhaps `reason`."""
    try:
        return await work
    except (RejectedError, DecisionError) as exc:
        return {"error": str(exc), "reason": exc.reason, "exit_code": exc.exit_code}
    except EdgepackError as exc:
        return {"error": str(exc), "exit_code": exc.exit_code}


def ask(
    state_dir: Path, request: dict[str, Any], *, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any] | None:
    """Ask the running agent; None when none runs.

    Raises:
        StoreError: The socket is there but gives no answer.
    """
    path = state_dir / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(timeout_s)
        try:
            door.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as exc:
            raise StoreError(f"{path} cannot be opened: {exc.strerror or exc}") from exc
        try:
            door.sendall(json.dumps(request).encode() + b"\n")
            with door.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline(1024 * 1024))
        except (OSError, ValueError) as exc:
            raise StoreError(f"the agent at {path} gave no answer: {exc}") from exc
    return answer
