"""A bundle over HTTP: an honest nginx, and every way in which a server can fail."""

import asyncio
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from support.fetching import fetch, fetcher, model_of, parts, store
from support.servers import Answering, Nginx, head, running
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.config import FetchConfig
from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install.landing import Arrival
from edgepack.bundle import open_bundle, open_layout
from edgepack.wire.desired import DesiredModel
from edgepack.wire.throttle import Throttle

DIGEST = "sha256:" + "a" * 64
HURRIED = FetchConfig(stall_s=0.6, proxy="")


def weights(seed=0, size_bytes=400_000):
    return np.random.default_rng(seed).bytes(size_bytes)


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path, model=weights())


def serving(data, *, ranges=True, etag='"v1"', change=None):
    """How an honest server answers; `change` may spoil an answer: (asked, number, start, end)."""

    def answer(asked, connection, number):
        content = data() if callable(data) else data
        wanted = asked.headers.get("Range", "").removeprefix("bytes=")
        said = [f"ETag: {etag}"] if etag else []
        fresh = asked.headers.get("If-Range") in (None, etag)
        if not (wanted and ranges and fresh):
            start, end, status = 0, len(content), "200 OK"
        else:
            first, _, last = wanted.partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(content), len(content))
            status = "206 Partial Content"
            said.append(f"Content-Range: bytes {start}-{end - 1}/{len(content)}")
        body = content[start:end]
        if change is not None:
            spoilt = change(asked, number, start, end)
            if spoilt is not None:
                connection.sendall(spoilt)
                return
        connection.sendall(head(status, *said, f"Content-Length: {len(body)}") + body)

    return answer


def test_a_real_server_gives_a_whole_bundle(tmp_path, nginx, bundle):
    """From nginx, by ranges, each blob once."""
    (nginx.www / "b").write_bytes(bundle.read_bytes())
    fetch(tmp_path / "state", model_of(bundle, f"{nginx.url}/b"))
    assert nginx.sent_bytes() < bundle.stat().st_size + 20_000


def test_unchanged_weights_are_not_fetched_again(tmp_path, nginx, bundle):
    """A new version whose weights are on disk already costs kilobytes."""
    (nginx.www / "1").write_bytes(bundle.read_bytes())
    first = model_of(bundle, f"{nginx.url}/1")
    store(tmp_path / "state", fetch(tmp_path / "state", first), first)
    before = nginx.sent_bytes()
    newer = write_tiny_bundle(tmp_path, version="1.1.0", model=weights())
    (nginx.www / "2").write_bytes(newer.read_bytes())
    fetch(tmp_path / "state", model_of(newer, f"{nginx.url}/2"))
    assert nginx.sent_bytes() - before < 40_000 < newer.stat().st_size


def test_a_real_server_that_is_restarted_meanwhile(tmp_path):
    """Nginx ends in the middle of the weights and comes back: the fetch goes on where it was."""
    bundle = write_tiny_bundle(tmp_path, model=weights(size_bytes=1_500_000))
    folder, state = tmp_path / "nginx", tmp_path / "state"
    folder.mkdir()
    made = fetcher(state)

    async def run(server):
        (server.www / "b").write_bytes(bundle.read_bytes())
        model = model_of(bundle, f"{server.url}/b")
        fetching = asyncio.create_task(made.fetch(model))
        while max(parts(state).values(), default=0) < 200_000:
            assert not fetching.done(), fetching
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop)
        server.log.write_text("")
        await asyncio.to_thread(server.start)
        while True:
            try:
                return model, await fetching
            except FetchError:  # it came back late: the agent tries again, and so does this
                fetching = asyncio.create_task(made.fetch(model))

    with running(Nginx(folder, "limit_rate 400k;")) as server:
        model, fetched = asyncio.run(run(server))
        open_layout(fetched.staging, model.digest, signatures=fetched.signatures)
        assert server.sent_bytes() < bundle.stat().st_size - 150_000


def test_what_came_before_a_restart_is_kept(tmp_path, bundle):
    """The connection breaks in the weights; the next run of the agent asks for the rest only."""
    data = bundle.read_bytes()

    def once(asked, number, start, end):
        if end - start < 100_000 or broken:
            return None
        broken.append(asked)
        return (
            head(
                "206 Partial Content",
                'ETag: "v1"',
                f"Content-Range: bytes {start}-{end - 1}/{len(data)}",
                f"Content-Length: {end - start}",
            )
            + data[start : start + 30_000]  # less than what counts as progress
        )

    broken = []
    with Answering(serving(data, change=once)) as server:
        model = model_of(bundle, f"{server.url}/b")
        with pytest.raises(FetchError, match="bytes are missing"):
            fetch(tmp_path / "state", model)
        assert [30_000] == list(parts(tmp_path / "state").values())
        asked = len(server.asked)
        fetch(tmp_path / "state", model)
    first, last = broken[0].headers["Range"].removeprefix("bytes=").split("-")
    resumed = f"bytes={int(first) + 30_000}-{last}"
    assert resumed in [one.headers.get("Range") for one in server.asked[asked:]]


def test_a_line_that_breaks_again_and_again_gives_the_bundle(tmp_path, bundle):
    """As long as every connection brings some of it, the fetch goes on by itself."""
    data = bundle.read_bytes()

    def short(asked, number, start, end):
        if end - start < 150_000:
            return None
        return (
            head(
                "206 Partial Content",
                f"Content-Range: bytes {start}-{end - 1}/{len(data)}",
                f"Content-Length: {end - start}",
            )
            + data[start : start + 150_000]
        )

    with Answering(serving(data, etag=None, change=short)) as server:
        fetch(tmp_path / "state", model_of(bundle, f"{server.url}/b"))


def test_a_spoilt_rest_is_fetched_anew(tmp_path, bundle):
    """What lies on disk after a power cut may be zeros: it is hashed, and costs one more try."""
    with Answering(serving(bundle.read_bytes())) as server:
        model = model_of(bundle, f"{server.url}/b")
        layer = next(
            layer for layer in open_bundle(bundle).manifest.layers if layer.path.endswith("onnx")
        )
        landing = fetcher(tmp_path / "state")._blobs.landing_for(model.digest)
        landing._part(layer.blob.digest).write_bytes(bytes(100_000))
        with pytest.raises(FetchError, match="not good any more") as caught:
            asyncio.run(one_try(tmp_path / "state", model))
        assert layer.blob.digest in str(caught.value)
        fetch(tmp_path / "state", model)


async def one_try(state, model):
    """A fetch without the patience for another try."""
    made = fetcher(state)
    landing = made._blobs.landing_for(model.digest)
    return await made._from_any(model, landing)


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_a_file_that_changes_meanwhile_is_looked_at_anew(tmp_path, bundle, etag):
    """A longer archive of the same bundle takes its place: the right bytes come all the same."""
    other = tmp_path / "signed.edgepack"
    other.write_bytes(bundle.read_bytes())
    from edgepack.bundle import sign_bundle
    from edgepack.trust import PrivateKey, keygen

    sign_bundle(other, PrivateKey.load(keygen(tmp_path / "keys").release_key), sequence=1)
    old, new = bundle.read_bytes(), other.read_bytes()

    def answer(asked, connection, number):
        changed = number >= 2
        tag = etag if changed else ('"v1"' if etag else None)
        serving(new if changed else old, etag=tag)(asked, connection, number)

    with Answering(answer) as server:
        fetch(tmp_path / "state", model_of(bundle, f"{server.url}/b"))
    assert len(server.asked) > 3


def test_a_file_that_never_stays_the_same_is_a_failed_fetch(tmp_path, bundle):
    """It is looked at three times, then left for later."""
    count = iter(range(1000))

    def answer(asked, connection, number):
        serving(bundle.read_bytes(), etag=f'"{next(count)}"')(asked, connection, number)

    with Answering(answer) as server, pytest.raises(FetchError, match="changed"):
        asyncio.run(one_try(tmp_path / "state", model_of(bundle, f"{server.url}/b")))
    assert len(server.asked) < 20


@pytest.mark.parametrize("state", ["new", "has weights"])
def test_a_server_without_ranges_gives_the_whole_file(tmp_path, bundle, state):
    """Answered 200, the file is taken as it comes, in one request."""
    with Answering(serving(bundle.read_bytes(), ranges=False)) as server:
        model = model_of(bundle, f"{server.url}/b")
        fetched = fetch(tmp_path / "state", model)
        assert 1 == len(server.asked)
        if state == "has weights":
            store(tmp_path / "state", fetched, model)
            newer = write_tiny_bundle(tmp_path, version="2.0.0", model=weights())
            with Answering(serving(newer.read_bytes(), ranges=False)) as other:
                fetch(tmp_path / "state", model_of(newer, f"{other.url}/b"))


def test_a_whole_file_goes_on_where_it_broke(tmp_path, bundle):
    """Without ranges the bytes come again, but what is on disk is not written again."""
    data = bundle.read_bytes()

    def broken(asked, number, start, end):
        if number:
            return None
        return head("200 OK", f"Content-Length: {len(data)}") + data[: len(data) // 2]

    with Answering(serving(data, ranges=False, change=broken)) as server:
        fetch(tmp_path / "state", model_of(bundle, f"{server.url}/b"))
    assert 2 == len(server.asked)


def test_real_nginx_without_ranges(tmp_path, bundle):
    """`max_ranges 0`: nginx answers 200 to every range."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    with running(Nginx(folder, "max_ranges 0;")) as server:
        (server.www / "b").write_bytes(bundle.read_bytes())
        fetch(tmp_path / "state", model_of(bundle, f"{server.url}/b"))
    assert [200] == [status for _, status, _ in server.requests()]


SPOILT_RANGES = {
    "other bytes than asked for": lambda data, start, end: (
        head(
            "206 Partial Content",
            f"Content-Range: bytes {start + 1}-{end}/{len(data)}",
            f"Content-Length: {end - start}",
        )
        + data[start + 1 : end + 1]
    ),
    "no Content-Range": lambda data, start, end: (
        head("206 Partial Content", f"Content-Length: {end - start}") + data[start:end]
    ),
    "a length that is not the range's": lambda data, start, end: (
        head(
            "206 Partial Content",
            f"Content-Range: bytes {start}-{end - 1}/{len(data)}",
            f"Content-Length: {end - start + 7}",
        )
        + data[start:end]
        + b"x" * 7
    ),
    "nothing, in pieces": lambda data, start, end: (
        head(
            "206 Partial Content",
            f"Content-Range: bytes {start}-{end - 1}/{len(data)}",
            "Transfer-Encoding: chunked",
        )
        + b"0\r\n\r\n"
    ),
    "a whole of unknown size": lambda data, start, end: (
        head(
            "206 Partial Content",
            f"Content-Range: bytes {start}-{end - 1}/*",
            f"Content-Length: {end - start}",
        )
        + data[start:end]
    ),
}


@pytest.mark.parametrize("lie", SPOILT_RANGES)
@pytest.mark.parametrize("after", [0, 1])
def test_a_server_that_lies_about_ranges_is_asked_for_the_whole(tmp_path, bundle, lie, after):
    """Whichever answer makes no sense, the bundle comes whole in the end."""
    data = bundle.read_bytes()

    def spoil(asked, number, start, end):
        by_range = "Range" in asked.headers and number >= after
        return SPOILT_RANGES[lie](data, start, end) if by_range else None

    with Answering(serving(data, change=spoil)) as server:
        fetch(tmp_path / "state", model_of(bundle, f"{server.url}/b"))
    assert "Range" not in server.asked[-1].headers


def drip(asked, connection, number):
    """An answer that never ends, one byte at a time."""
    connection.sendall(head("200 OK", "Content-Length: 1000000"))
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.05)


def drip_head(asked, connection, number):
    """A head that never ends."""
    for _ in range(1000):
        connection.sendall(b"X")
        time.sleep(0.05)


def continue_for_ever(asked, connection, number):
    """Interim answers without end."""
    while True:
        connection.sendall(head("100 Continue") * 100)


def redirect_for_ever(asked, connection, number):
    connection.sendall(head("302 Found", f"Location: /{number}", "Content-Length: 0"))


def to_scheme(location):
    def answer(asked, connection, number):
        connection.sendall(head("302 Found", f"Location: {location}", "Content-Length: 0"))

    return answer


def says(*lines, body=b""):
    def answer(asked, connection, number):
        connection.sendall(head(*lines) + body)

    return answer


BAD = {
    "stalls at once": (lambda *_: time.sleep(3), "stalled|no answer in time"),
    "drips": (drip, "stalled"),
    "drips its head": (drip_head, "stalled"),
    "interim answers without end": (continue_for_ever, "head must be at most"),
    "redirects without end": (redirect_for_ever, "more than 5 redirects"),
    "redirects to a file": (to_scheme("file:///etc/passwd"), "redirects to what cannot"),
    "redirects to ftp": (to_scheme("ftp://127.0.0.1/x"), "redirects to what cannot"),
    "redirects to a user": (to_scheme("http://u:p@127.0.0.1/x"), "with a user in it"),
    "is not there": (says("404 Not Found", "Content-Length: 0"), "answered 404"),
    "fails": (says("500 Oops", "Content-Length: 0"), "answered 500"),
    "is empty": (says("416 Range Not Satisfiable", "Content-Length: 0"), "answered 416"),
    "compresses": (says("200 OK", "Content-Encoding: gzip", body=b"x"), "asked for"),
    "speaks something else": (lambda _, c, __: c.sendall(b"SSH-2.0-x\r\n"), "SSH|BadStatus"),
    "closes": (lambda *_: None, "closed|reset"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_server_is_a_failed_fetch(tmp_path, kind):
    """One line that says what it did, within the time that it is given."""
    answer, told = BAD[kind]
    with Answering(answer) as server, pytest.raises(FetchError, match=told) as caught:
        model = DesiredModel(name="m", version="1.0.0", digest=DIGEST, sources=(server.url,))
        asyncio.run(fetcher(tmp_path, config=HURRIED).fetch(model))
    assert "\n" not in str(caught.value)


REFUSED = {
    "no archive": (says("200 OK", "Content-Length: 1000", body=b"x" * 1000), "bundle_invalid"),
    "endless": (says("200 OK", body=b"\0" * 5_000_000), "bundle_invalid"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_bundle_is_refused(tmp_path, kind):
    """It is not fetched again until the desired state changes."""
    answer, reason = REFUSED[kind]
    with Answering(answer) as server, pytest.raises(RejectedError) as caught:
        model = DesiredModel(name="m", version="1.0.0", digest=DIGEST, sources=(server.url,))
        asyncio.run(fetcher(tmp_path).fetch(model))
    assert reason == caught.value.reason


def test_endless_blobs_end_at_the_limit(tmp_path, bundle):
    """Members without end, each in order: no more is taken than the archive may have."""
    from edgepack.bundle.tar_header import render_header

    start = bundle.read_bytes()[:2048]  # oci-layout and index.json
    blob = render_header("blobs/sha256/" + "0" * 64, 8**11 - 1)
    chunk = bytes(1 << 20)

    def answer(asked, connection, number):
        connection.sendall(head("200 OK") + start + blob)
        while True:
            connection.sendall(chunk)

    with Answering(answer) as server, pytest.raises(RejectedError) as caught:
        asyncio.run(fetcher(tmp_path / "s").fetch(model_of(bundle, f"{server.url}/b")))
    assert "too_large" == caught.value.reason


def test_another_bundle_is_refused_and_the_next_source_is_asked(tmp_path, bundle):
    """The file at a URL may have become another: that is that source's fault only."""
    other = write_tiny_bundle(tmp_path, name="other")
    with Answering(serving(other.read_bytes())) as wrong:
        model = model_of(bundle, f"{wrong.url}/b")
        with pytest.raises(RejectedError) as caught:
            asyncio.run(fetcher(tmp_path / "state").fetch(model))
        assert "wrong_bundle" == caught.value.reason
        fetch(tmp_path / "state", replace(model, sources=(*model.sources, bundle.as_uri())))


def test_a_damaged_blob_is_refused(tmp_path, bundle):
    """Hashed where it lands."""
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    for ranges in (True, False):
        with (
            Answering(serving(bytes(data), ranges=ranges)) as server,
            pytest.raises(RejectedError) as caught,
        ):
            asyncio.run(fetcher(tmp_path / "s").fetch(model_of(bundle, f"{server.url}/b")))
        assert "bundle_invalid" == caught.value.reason


@pytest.mark.parametrize(
    "source",
    [
        "http://[",
        "http://user:secret@host.invalid/",
        "http://user:secret@127.0.0.1:1/",
        "http://" + "a" * 300 + "/",
        "https://ho st/",
        "https://127.0.0.1:0/",
        "file:/" + "a" * 300,
        "file:/%00",
        "file://[/x",
        "oci://127.0.0.1:1/m",
        "oci://127.0.0.1:1/UPPER",
        "oci:nothing",
    ],
)
def test_a_source_that_makes_no_sense_is_a_failed_fetch(tmp_path, source):
    """Whatever a signed desired state names: one line, no secret, and the agent goes on."""
    model = DesiredModel(name="m", version="1.0.0", digest=DIGEST, sources=(source,))
    with pytest.raises(FetchError) as caught:
        asyncio.run(fetcher(tmp_path).fetch(model))
    assert "secret" not in str(caught.value)


def test_a_stalled_download_does_not_keep_the_process(tmp_path):
    """Cancelled, it is left alone: the process ends at once."""
    with Answering(lambda *_: time.sleep(30)) as server:
        script = (
            "import asyncio, pathlib\n"
            "from support.fetching import fetcher\n"
            "from edgepack.wire.desired import DesiredModel\n"
            f"made = fetcher(pathlib.Path({str(tmp_path)!r}))\n"
            f"model = DesiredModel(name='m', version='1.0.0', digest={DIGEST!r},\n"
            f"    sources=({server.url!r},))\n"
            "async def main():\n"
            "    task = asyncio.create_task(made.fetch(model))\n"
            "    await asyncio.sleep(0.5)\n"
            "    task.cancel()\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run([sys.executable, "-c", script], timeout=20, check=False, cwd="tests")
    assert 0 == done.returncode


def test_a_fetch_that_was_given_up_writes_nothing_more(tmp_path, bundle):
    """A thread that still runs cannot spoil what the next fetch writes."""
    model = model_of(bundle, "file:/x")
    landing = fetcher(tmp_path)._blobs.landing_for(model.digest)
    ref = replace(model.signatures[0]) if model.signatures else None
    from edgepack.wire.desired import BlobRef

    arrival = landing.arrive(ref or BlobRef(digest=DIGEST, size_bytes=10))
    arrival.write(b"123")
    landing.give_up()
    with pytest.raises(FetchError, match="given up"):
        arrival.write(b"456")
    assert [3] == list(parts(tmp_path).values())


def test_a_disk_that_fills_up_is_the_devices_trouble(tmp_path, bundle, monkeypatch):
    """What came stays, and with room again the rest follows."""
    taken = []
    write = Arrival.write

    def full(arrival, data):
        if sum(taken) > 100_000:
            raise StoreError("disk full")
        taken.append(len(data))
        write(arrival, data)

    with Answering(serving(bundle.read_bytes())) as server:
        model = model_of(bundle, f"{server.url}/b")
        monkeypatch.setattr(Arrival, "write", full)
        with pytest.raises(StoreError):
            fetch(tmp_path / "state", model)
        monkeypatch.setattr(Arrival, "write", write)
        kept = sum(parts(tmp_path / "state").values())
        asked = len(server.asked)
        fetch(tmp_path / "state", model)
    assert kept > 90_000
    assert any(
        int(one.headers["Range"].removeprefix("bytes=").split("-")[0]) > 100_000
        for one in server.asked[asked:]
        if "Range" in one.headers
    )


class Counting(Throttle):
    """A throttle that lets everything through, and remembers how much."""

    def __init__(self):
        super().__init__(1e9)
        self.bytes = 0

    def delay_s(self, size_bytes):
        self.bytes += size_bytes
        return 0.0


def test_every_byte_that_comes_counts_for_the_rate(tmp_path, nginx, bundle):
    """Heads of answers included."""
    (nginx.www / "b").write_bytes(bundle.read_bytes())
    throttle = Counting()
    fetch(tmp_path / "state", model_of(bundle, f"{nginx.url}/b"), throttle=throttle)
    assert nginx.sent_bytes() == throttle.bytes
