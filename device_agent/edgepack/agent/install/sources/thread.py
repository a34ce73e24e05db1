"""Sources that block, on threads that the process does not wait for when it ends."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.sources.source import Described
from edgepack.bundle import BundleError
from edgepack.wire.desired import BlobRef
from edgepack.wire.errors import TransferError, WireError

T = TypeVar("T")


class BlockingSource(Protocol):
    """As `Source`, but each call holds its thread. `stop` comes from another one."""

    def describe(self, landing: Landing) -> Described:
        """Look what is there."""

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Fetch blobs."""

    def stop(self) -> None:
        """Make whatever goes on fail soon; called from another thread."""

    def close(self) -> None:
        """Let go of everything; nothing goes on any more."""


class ThreadSource:
    """A blocking source for the event loop; its errors become the agent's.

    Args:
        inner: The source.
    """

    def __init__(self, inner: BlockingSource) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._working = False
        self._closed = False

    async def describe(self, landing: Landing) -> Described:
        """Look what is there."""
        return await self._run(lambda: self._inner.describe(landing))

    async def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Fetch blobs."""
        await self._run(lambda: self._inner.get(refs, landing))

    def close(self) -> None:
        """End whatever still goes on; a thread that works still lets go of its things itself."""
        with self._lock:
            self._closed = True
            if self._working:
                self._inner.stop()
                return
        self._inner.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await in_own_thread(lambda: self._work(work))
        except (TransferError, WireError) as exc:
            raise FetchError(str(exc)) from exc
        except BundleError as exc:
            raise RejectedError("bundle_invalid", str(exc)) from exc

    def _work(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._closed:
                raise FetchError("fetch was given up")
            self._working = True
        try:
            return work()
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._working = False
            closed = self._closed
        if closed:
            self._inner.close()


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` on a thread that the process does not wait for when it ends.

    `asyncio.to_thread` would: a server that stalls would keep the agent from stopping.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 (raised again where it is waited for)
            failures.append(exc)
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="fetch", daemon=True).start()
    await ended.wait()
    if failures:
        raise failures[0]
    return results[0]
