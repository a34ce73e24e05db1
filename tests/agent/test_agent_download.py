"""A bundle over HTTP and from a file: every way in which a server can fail."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from support.agent_process import wait_until

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.download import download
from edgepack.agent.install.fetch import Fetcher
from edgepack.wire.desired import DesiredModel

DIGEST = "sha256:" + "a" * 64


@contextmanager
def server(answer: bytes, *, reset: bool = False, stall: bool = False):
    """An HTTP server that says `answer` and then closes, resets or stalls; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.sendall(answer)
            if stall:
                stop.wait(60)
            if reset:
                time.sleep(0.1)
                linger = b"\x01\0\0\0\0\0\0\0"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/b"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def fetch(tmp_path, *sources):
    fetcher = Fetcher(BlobStore(tmp_path), None, prefix="p", max_bundle_bytes=10_000)
    model = DesiredModel(name="m", version="1.0.0", digest=DIGEST, sources=sources)
    return asyncio.run(fetcher.fetch(model))


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks_is_no_fault_of_the_bundle(tmp_path, reset):
    """Half a download is a failed fetch, for the next source or a later try; nothing is left."""
    with server(OK + b"x" * 500, reset=reset) as url, pytest.raises(FetchError, match="broke"):
        download(url, tmp_path / "d", 10_000, threading.Event())
    assert not (tmp_path / "d").exists()


def test_the_next_source_is_asked(tmp_path):
    """After a broken one the good one gives the bundle."""
    with server(OK + b"x" * 500, reset=True) as bad, server(OK + b"x" * 1000) as good:
        fetched = fetch(tmp_path, bad, good)
    assert b"x" * 1000 == fetched.file.read_bytes()


def test_more_than_allowed_is_refused(tmp_path):
    """The limit holds whatever the server promises."""
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500
    with server(endless) as url, pytest.raises(RejectedError, match="at most 100 bytes"):
        download(url, tmp_path / "d", 100, threading.Event())
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "source",
    [
        "http://[",
        "http://user:secret@host/",
        "http://" + "a" * 300 + "/",
        "https://ho st/",
        "file:/" + "a" * 300,
        "file:/%00",
        "file://[/x",
    ],
)
def test_a_source_that_makes_no_sense_is_a_failed_fetch(tmp_path, source):
    """Whatever a signed desired state names: one line, no secret, and the agent goes on."""
    with pytest.raises(FetchError) as caught:
        fetch(tmp_path, source)
    assert "secret" not in str(caught.value)


def test_a_stalled_download_does_not_keep_the_process(tmp_path):
    """Cancelled, it is left alone: the process ends at once."""
    with server(OK + b"x" * 500, stall=True) as url:
        script = (
            "import asyncio, pathlib\n"
            "from edgepack.agent.install.blobs import BlobStore\n"
            "from edgepack.agent.install.fetch import Fetcher\n"
            "from edgepack.wire.desired import DesiredModel\n"
            f"fetcher = Fetcher(BlobStore(pathlib.Path({str(tmp_path)!r})), None, prefix='p',\n"
            "    max_bundle_bytes=10_000)\n"
            f"model = DesiredModel(name='m', version='1.0.0', digest={DIGEST!r},\n"
            f"    sources=({url!r},))\n"
            "async def main():\n"
            "    task = asyncio.create_task(fetcher.fetch(model))\n"
            "    await asyncio.sleep(0.5)\n"
            "    task.cancel()\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run([sys.executable, "-c", script], timeout=10, check=False)
    assert 0 == done.returncode


def test_a_download_that_was_given_up_ends(tmp_path):
    """The thread that nobody waits for stops at its next block."""
    given_up = threading.Event()
    given_up.set()
    with server(OK + b"x" * 1000) as url, pytest.raises(FetchError, match="given up"):
        download(url, tmp_path / "d", 10_000, given_up)
    wait_until(lambda: not (tmp_path / "d").exists(), "nothing is left")
