"""Child processes that use tools, one for each core, and the threads that talk to them."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from edgepack.converter.child import TOOLS_ONLY, Child
from edgepack.converter.errors import WorkerError
from edgepack.converter.search.cache import AnswerCache, key_of
from edgepack.converter.sources.scratch import LARGE_FILES
from edgepack.converter.tools.ask import tool_message, tool_result
from edgepack.converter.tools.tool import ToolJob, ToolResult
from edgepack.converter.worker_messages import Message
from edgepack.converter.worker_process import WorkerProcess

T = TypeVar("T")


class ToolPool:
    """Runs work on all cores, to be used in a `with` block.

    Args:
        timeout_s: Of each child process.
        memory_bytes: Limit of each child; None for the default.
        scratch: Folder for temporary files; the caller removes it.
        cache: Answers of tools.
        workers: How many; by default as many as this process may use cores.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        memory_bytes: int | None,
        scratch: str,
        cache: AnswerCache,
        workers: int | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._scratch = scratch
        self._cache = cache
        self._own = threading.local()
        self._lock = threading.Lock()
        self._children = ExitStack()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(workers or _cores())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._children.close()  # ends what is still computing, so that its thread ends too
        self._threads.shutdown(wait=True)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do something in one of the threads; it may call `use`."""
        return self._threads.submit(work)

    def use(self, tool: str, job: ToolJob) -> ToolResult:
        """Use a tool in this thread's child process.

        Raises:
            UnsupportedModelError: The tool cannot take this model.
            ConvertError: The child failed; the next call gets a new one.
        """
        message = tool_message(tool, job)

        def ask() -> Message:
            worker = self._worker()
            try:
                return worker.ask(message)
            except WorkerError:
                self._own.worker = None
                raise

        return tool_result(self._cache.answer(lambda: key_of(message), ask))

    def _worker(self) -> WorkerProcess:
        worker: WorkerProcess | None = getattr(self._own, "worker", None)
        if worker is None:
            with self._lock:
                if self._is_closed:
                    raise WorkerError("the search was ended")
                child = self._children.enter_context(
                    Child(
                        TOOLS_ONLY,
                        timeout_s=self._timeout_s,
                        memory_bytes=self._memory_bytes,
                        file_bytes=LARGE_FILES,
                        scratch=self._scratch,
                    )
                )
            worker = self._own.worker = WorkerProcess(child)
        return worker


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
