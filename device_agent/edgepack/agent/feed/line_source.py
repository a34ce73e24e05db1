"""JSON lines: on standard input, or on a unix socket that the agent makes.

A line is read when the one before it is answered, so that whoever writes is held back instead of
filling memory; and none before the model is there.
"""

import asyncio
import logging
import os
import stat
import sys
from pathlib import Path
from typing import Final

from edgepack.agent.feed.errors import MessageError
from edgepack.agent.feed.feeder import MAX_MESSAGE_BYTES, Feeder

logger = logging.getLogger(__name__)

_RETRY_S: Final = 30.0
_MAX_CLIENTS: Final = 16
_BACKLOG: Final = 16


async def read_stdin(feeder: Feeder) -> None:
    """Feed what stands on standard input; when it ends, everything else goes on."""
    await feeder.ready()
    number = sys.stdin.fileno()
    mode = os.fstat(number).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)):
        await _read_file(feeder)  # or /dev/null
    else:
        reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(reader)
        await loop.connect_read_pipe(lambda: protocol, sys.stdin)
        await _read_lines(reader, feeder)
    logger.info("feed.ended name=%s source=stdin", feeder.config.name)


async def _read_file(feeder: Feeder) -> None:
    """A file cannot be waited for: it is read on a thread."""
    while True:
        line = await asyncio.to_thread(sys.stdin.buffer.readline, MAX_MESSAGE_BYTES + 1)
        if not line:
            return
        await _take(line, feeder)


async def _read_lines(reader: asyncio.StreamReader, feeder: Feeder) -> None:
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            await _take(exc.partial, feeder)
            return
        except asyncio.LimitOverrunError as exc:
            await reader.readexactly(exc.consumed)
            feeder.received()
            feeder.reject(
                MessageError("too_large", f"a line must be at most {MAX_MESSAGE_BYTES} bytes")
            )
            await _skip_line(reader)
            continue
        await _take(line, feeder)


async def _skip_line(reader: asyncio.StreamReader) -> None:
    while True:
        try:
            await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as exc:
            await reader.readexactly(exc.consumed)
        except asyncio.IncompleteReadError:
            return
        else:
            return


async def _take(line: bytes, feeder: Feeder) -> None:
    if line.strip():
        await feeder.ready()
        await feeder.line(line)


class LineSocket:
    """A unix socket whose clients write JSON lines; nothing is written back.

    Args:
        path: Where it is made, mode 0660.
        feeder: What the lines feed.
    """

    def __init__(self, path: Path, feeder: Feeder) -> None:
        self._path = path
        self._feeder = feeder
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen until cancelled; without the socket only this input is missing."""
        while True:
            try:
                await self._listen()
            except OSError as exc:
                logger.warning("feed.unusable name=%s error=%s", self._feeder.config.name, exc)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        if self._path.is_socket():  # of a run that ended badly; anything else stays
            self._path.unlink()
        server = await asyncio.start_unix_server(
            self._serve, path=self._path, limit=MAX_MESSAGE_BYTES, backlog=_BACKLOG
        )
        self._path.chmod(0o660)
        try:
            await server.serve_forever()
        finally:
            for client in self._clients:
                client.cancel()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= _MAX_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            await _read_lines(reader, self._feeder)
        except (ConnectionError, asyncio.CancelledError):
            logger.debug("feed.client_gone name=%s", self._feeder.config.name)
        finally:
            self._clients.discard(task)
            writer.close()
