"""A bundle over HTTP: one file, bounded, given up at once when nobody waits for it any more."""

import asyncio
import contextlib
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from edgepack.agent.disk import storage_error
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.trust.errors import EdgepackError

_HTTP_TIMEOUT_S = 30.0
_COPY_BYTES = 256 * 1024


def download(url: str, target: Path, limit_bytes: int, given_up: threading.Event) -> None:
    """Fetch a URL into a file, never more than `limit_bytes`.

    Args:
        url: An http(s) URL; the desired state's parser allows no other.
        target: A file that does not exist; on failure it does not afterwards.
        limit_bytes: Largest size.
        given_up: Set when nobody waits for the file any more.

    Raises:
        FetchError: The server does not give it, or not all of it.
        RejectedError: It gives more than that.
        StoreError: The disk does not take it.
    """
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT_S) as response:  # noqa: S310
            _copy(response, target, limit_bytes, given_up)
    except EdgepackError:
        target.unlink(missing_ok=True)
        raise
    except urllib.error.HTTPError as exc:
        raise FetchError(f"{_shown(url)} answered {exc.code}") from exc
    except (http.client.InvalidURL, ValueError) as exc:  # its text may hold a password
        raise FetchError(f"{_shown(url)} is not a URL that can be fetched") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise FetchError(f"{_shown(url)}: {getattr(exc, 'reason', None) or exc}") from exc


async def in_own_thread(work: Callable[[], None]) -> None:
    """Run `work` on a thread that the process does not wait for when it ends.

    `asyncio.to_thread` would: a server that stalls would keep the agent from stopping.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 (raised again where it is waited for)
            failures.append(exc)
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="download", daemon=True).start()
    await ended.wait()
    if failures:
        raise failures[0]


def _copy(
    response: http.client.HTTPResponse,
    target: Path,
    limit_bytes: int,
    given_up: threading.Event,
) -> None:
    received = 0
    try:
        handle = target.open("xb")
    except OSError as exc:
        raise storage_error(target, exc) from exc
    with handle:
        while block := _read(response):
            received += len(block)
            if received > limit_bytes:
                raise RejectedError(
                    "too_large", f"download must be at most {limit_bytes} bytes, got more"
                )
            if given_up.is_set():
                raise FetchError("download was given up")
            try:
                handle.write(block)
            except OSError as exc:
                raise storage_error(target, exc) from exc
    if response.length:  # http.client takes a connection that broke for the end
        raise FetchError(f"download broke after {received} bytes, {response.length} are missing")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_COPY_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        raise FetchError(f"download broke: {exc}") from exc


def _shown(url: str) -> str:
    """A URL without what may be secret: no user, password or query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition(":")[0] + "://…"
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
