"""A head that came before is not read anew; nobody can tell, whatever is sent and however."""

import asyncio
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgepack.agent.serve.http.connection import Connection
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.messages import HttpError, Response, Traffic
from edgepack.agent.serve.http.repeats import KnownHeads


def request(path="/quick", body=b"", *lines, method="POST", version="1.1"):
    """The bytes of one request."""
    first = f"{method} {path} HTTP/{version}"
    length = () if method == "GET" else (f"Content-Length: {len(body)}",)
    return "\r\n".join([first, "Host: x", *length, *lines, "", ""]).encode() + body


QUICK = request(body=b"one")
REQUESTS = (
    *[QUICK] * 3,
    request(body=b"two"),
    request(body=b"three"),
    request("/slow", b"one"),
    request("/slow", b"one"),
    request("/refused", b"one"),
    request("/defect", b"one"),
    request(method="GET"),
    request(method="HEAD"),
    request(body=b"one", version="1.0"),
    request("/quick", b"one", "Expect: 100-continue"),
    request("/quick", b"one", "Connection: close"),
    request("/quick", b"one", "Content-Length: 3"),
    request("/quick", b"\r\n\r\n"),
    b"\r\n" + QUICK,
    b"POST /quick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    b"nonsense\r\n\r\n",
)
# A head that ends in bare line feeds, with the usual end of a head in its body, and the first bytes
# of a request behind it: cut at the wrong end the lengths would be right.
BARE = b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 4\n\n" + b"\r\n\r\n" + b"GET "
BARE_REST = b"/quick HTTP/1.1\r\nHost: x\r\n\r\n"

EVENTS = ("pause_writing", "resume_writing", "leave")


class Line(asyncio.Transport):
    """A connection in memory, and the server behind it, which gives bodies back."""

    def __init__(self):
        super().__init__()
        self.limits = HttpLimits(max_body_bytes=4, max_connections=1)
        self.traffic = Traffic()
        self.site = self
        self.seen = []
        self.is_over = self.is_paused = False
        self.asked = 0
        self.connection = Connection(self, is_local=False)
        self.connection.connection_made(self)

    def admit(self, head):
        self.asked += 1
        path = head.target
        if path == "/refused" or (path == "/slow" and self.asked % 3 == 0):
            raise HttpError(404, "there is no such thing", headers=((b"X-Why", b"test"),))
        return self.slow if path == "/slow" else self.quick

    async def slow(self, request):
        for _ in range(3):
            await asyncio.sleep(0)
        return await self.quick(request)

    async def quick(self, request):
        if request.head.target == "/defect":
            raise HttpError(400, "there is something wrong")
        body = (request.head.method.encode(), b" ", bytes(request.body))
        return Response(status=200, body=body, content_type=b"text/plain")

    def entered(self, _):
        return True

    def left(self, _):
        pass

    def write(self, data):
        self.seen.append(bytes(data))

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.seen.append("half closed")

    def close(self):
        self.seen.append("closed")
        self.is_over = True

    abort = close

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False

    def get_extra_info(self, *_):
        return None

    @property
    def transcript(self):
        """What was sent, in order; how it was cut is nobody's business."""
        whole = b"".join(part for part in self.seen if isinstance(part, bytes))
        return whole, [part for part in self.seen if isinstance(part, str)]


async def replay(pieces):
    """Send pieces; None lets the server work first, words are what else happens."""
    line = Line()
    for piece in pieces:
        if line.is_over:
            break
        if piece in EVENTS:
            getattr(line.connection, piece)()
            continue
        if piece is None or line.is_paused:
            await work()
        if piece is None or line.is_over:
            continue
        if line.is_paused:
            break  # the caller takes nothing, so that nothing is read
        if piece == "eof":
            if not line.connection.eof_received():
                line.close()
            break
        line.connection.data_received(piece)
    await work()
    return line


async def work():
    """Let the server do what it can do."""
    for _ in range(20):
        await asyncio.sleep(0)


def cut(requests, places):
    """The bytes of the requests, cut at places that are shares of the whole."""
    whole = b"".join(requests)
    marks = sorted({0, len(whole), *(int(place * len(whole)) for place in places)})
    return [whole[one:two] for one, two in itertools.pairwise(marks)]


PIECES = st.one_of(
    st.lists(st.one_of(st.sampled_from(REQUESTS), st.none(), st.none()), max_size=14),
    st.lists(st.sampled_from((QUICK, request("/slow", b"one"), None, None, *EVENTS)), max_size=14),
    st.builds(
        cut,
        st.lists(st.sampled_from(REQUESTS[:9]), max_size=8),
        st.lists(st.floats(0, 1), max_size=8),
    ),
)


@settings(max_examples=400, deadline=None)
@given(pieces=PIECES, ends=st.booleans())
@example(
    pieces=[*[QUICK] * 6, request("/slow", b"one"), QUICK, request("/slow", b"one")], ends=False
)
@example(pieces=[QUICK, None, *[BARE, None, BARE_REST, None] * 3], ends=False)
def test_nobody_can_tell_whether_a_head_was_known(pieces, ends):
    """With and without the memory the same is sent, byte by byte."""
    pieces = [*pieces, "eof"] if ends else pieces
    remembering = asyncio.run(replay(pieces))
    find = KnownHeads.find
    try:
        KnownHeads.find = lambda *_: None
        forgetful = asyncio.run(replay(pieces))
    finally:
        KnownHeads.find = find
    assert forgetful.transcript == remembering.transcript
    assert forgetful.traffic == remembering.traffic
    assert 0 == remembering.traffic.held_bytes


def found(*pieces):
    """How often a head was known in an exchange of requests, one after the other."""
    known = []
    find = KnownHeads.find
    try:
        KnownHeads.find = lambda self, data: known.append(find(self, data)) or known[-1]
        asyncio.run(replay([part for piece in pieces for part in (piece, None)]))
    finally:
        KnownHeads.find = find
    return len([one for one in known if one is not None])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([QUICK] * 5, 3),  # the first is not between two requests, the second is learnt
        ([QUICK, request(body=b"two")] * 3, 4),  # the head is the same
        ([request(method="GET")] * 5, 3),
        ([request(body=b"one", version="1.0")] * 5, 0),
        ([request("/quick", b"one", "Expect: 100-continue")] * 5, 0),
        ([QUICK + QUICK] * 5, 0),
        ([request("/quick", b"one", "X-Pad: " + "x" * 3000)] * 5, 0),
        ([request(f"/quick?{n}") for n in range(9)] * 2, 0),
    ],
)
def test_only_plain_heads_are_remembered(pieces, expected):
    """The test above would not see it if nothing ever were."""
    assert expected == found(*pieces)
