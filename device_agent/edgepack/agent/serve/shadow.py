"""A challenger beside the model that answers: the same inputs, and nobody sees its answers.

Inputs wait in a queue of this agent's memory, bounded by number and by weight; when it is full
they are dropped and counted. The model itself runs in a process of its own (`shadow_child.py`), so
that it can neither slow nor break what answers.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack.agent.config import ProbationConfig, ShadowConfig
from edgepack.agent.errors import RejectedError
from edgepack.agent.install.judge import Figures, Outcome, judge
from edgepack.agent.install.slot import Installed
from edgepack.agent.serve.shadow_frames import MAX_LINE_BYTES, Work, render_frame
from edgepack.monitor import LatencyHistogram
from edgepack.monitor.disagreement import Comparison, Disagreement
from edgepack.runtime.tensors import Array
from edgepack.trust.decode import decode, encode
from edgepack.wire.messages import Scalar

logger = logging.getLogger(__name__)

_LOAD_S = 120.0
_ANSWER_S = 60.0
_GOODBYE_S = 2.0
_RESTART_S = 2.0
# systemd and Docker stop every process of a service at once: that says nothing about a model.
_INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


class Shadow:
    """One challenger; `start` it, `offer` it work, `stop` it.

    Args:
        installed: What it is.
        layout: The store.
        config: Bounds of memory and queue.
        limits: How many failures are too many.
        failed: Called once with a line when it is to go.
    """

    def __init__(
        self,
        installed: Installed,
        layout: Path,
        config: ShadowConfig,
        limits: ProbationConfig,
        *,
        failed: Callable[[str], None],
    ) -> None:
        self.installed = installed
        self._layout = layout
        self._config = config
        self._limits = limits
        self._failed = failed
        self._waiting: deque[Work] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._disagreement = Disagreement()
        self._latency = LatencyHistogram()
        self._memory_bytes: int | None = None
        self.requests = 0
        self.dropped = 0
        self.errors = 0

    async def start(self) -> None:
        """Load the model in its own process.

        Raises:
            RejectedError: It does not load within the memory that it may have, or in time.
        """
        await self._launch()
        self._task = asyncio.create_task(self._run(), name="shadow")

    def offer(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Let it see what the model was asked and answered; returns at once, may drop."""
        work = Work(inputs=inputs, outputs=outputs)
        size = work.size_bytes
        full = len(self._waiting) >= self._config.queue
        if full or self._waiting_bytes + size > self._config.queue_mb * 1e6:
            self.dropped += 1
            return
        self._waiting.append(work)
        self._waiting_bytes += size
        self._filled.set()

    def stop(self) -> None:
        """End it; nothing more is called."""
        if self._task is not None:
            self._task.cancel()
        self._kill()

    async def end(self) -> None:
        """End it, and return when its memory is free again."""
        self.stop()
        if self._process is not None:
            await self._process.wait()

    def figures(self) -> dict[str, float]:
        """Disagreement with intervals and latency, so far."""
        figures = self._disagreement.figures()
        if self._latency.count:
            figures["latency_p50_ms"] = self._latency.quantile(0.5) / 1e6
            figures["latency_p99_ms"] = self._latency.quantile(0.99) / 1e6
        return figures

    def metrics(self) -> dict[str, Scalar | None]:
        """Flat figures for `out/metrics/<model>`."""
        return {
            "shadow_version": self.installed.release.version,
            "shadow_requests": self.requests,
            "shadow_dropped": self.dropped,
            "shadow_errors": self.errors,
            "shadow_memory_bytes": self._memory_bytes,
            **{f"shadow_{name}": value for name, value in self.figures().items()},
        }

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._work()
                except _InterruptedError:
                    await asyncio.sleep(_RESTART_S)  # the agent is being stopped too, most likely
                    await self._launch()
        except RejectedError as exc:
            logger.warning("shadow.failed digest=%s error=%s", self.installed.digest, exc)
            self._kill()
            self._failed(str(exc))
        except Exception:  # whatever it is, the champion goes on, and somebody can read why
            logger.exception("shadow.defect digest=%s", self.installed.digest)
            self._kill()
            self._failed("the device failed; its log tells why")

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            if not self._waiting:
                self._filled.clear()
                continue
            work = self._waiting.popleft()
            self._waiting_bytes -= work.size_bytes
            try:
                frame = await asyncio.to_thread(render_frame, work)
            except ValueError as exc:  # too large to be worth it
                logger.debug("shadow.dropped error=%s", exc)
                self.dropped += 1
                continue
            self._count(await self._ask(frame, _ANSWER_S))

    def _count(self, answer: dict[str, Any]) -> None:
        if "error" not in answer:
            comparison = decode(
                Comparison, answer["comparison"], what="comparison", ignore_unknown=False
            )
            self.requests += 1
            self._disagreement.add(comparison)
            self._latency.record(int(answer["ns"]))
            self._memory_bytes = answer["memory_bytes"]
            return
        self.errors += 1
        counts = Figures(requests=self.requests, failures=self.errors)
        if judge(counts, None, self._limits, time_is_up=False).outcome is Outcome.ROLL_BACK:
            raise RejectedError(
                "shadow_failed",
                f"{self.errors} of {self.requests + self.errors} inputs failed: {answer['error']}",
            )

    async def _launch(self) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edgepack.agent.serve.shadow_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is for the agent
                limit=MAX_LINE_BYTES,
            )
        except OSError as exc:
            detail = f"its process cannot be started: {exc.strerror}"
            raise RejectedError("shadow_failed", detail) from exc
        installed = self.installed
        job = {
            "layout": str(self._layout),
            "digest": installed.digest,
            "signatures": list(installed.signatures),
            "variant": installed.variant,
            "options": encode(installed.options),
            "memory_bytes": int(self._config.memory_mb * 1e6),
        }
        try:
            answer = await self._ask(json.dumps(job).encode() + b"\n", _LOAD_S)
        except _InterruptedError as exc:
            raise RejectedError("shadow_failed", "it was interrupted while it was loaded") from exc
        if "error" in answer:
            self._kill()
            raise RejectedError("shadow_failed", f"it does not load: {answer['error']}")

    async def _ask(self, data: bytes, timeout_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                process.stdin.write(data)
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as exc:
            self._kill()
            raise RejectedError("shadow_failed", f"it hung for {timeout_s:.0f} s") from exc
        except (ConnectionError, ValueError):  # ValueError: a line over the limit
            line = b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        try:  # not killed at once: that would hide what it ended by
            async with asyncio.timeout(_GOODBYE_S):
                code = await process.wait()
        except TimeoutError:
            self._kill()
            code = await process.wait()
        if code in _INTERRUPTED:
            raise _InterruptedError
        raise RejectedError("shadow_failed", f"its process ended: {_ending(code)}")

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class _InterruptedError(Exception):
    """Somebody else ended the process, and says nothing about the model by it."""


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
