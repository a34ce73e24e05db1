"""What callers get wrong, on purpose or not: a clear error, and the service stays up."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import stat
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.agent_process import wait_until
from support.http_here import DEADLINE_S, http_here, read_all
from support.self_signed import write_self_signed
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.serve.http.connection import Connection
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.messages import Traffic

INFER = "/v2/models/tiny/infer"
X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def here(bundle):
    with http_here(max_body_mb=1.0) as server:
        server.put("tiny", bundle)
        yield server
        assert 200 == server.ask("POST", INFER, {"inputs": [X]})[0]  # whatever came before


def binary(shape, data, datatype="FP32", size=None, **more):
    """A body with one binary tensor, and the size of its JSON."""
    size = len(data) if size is None else size
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    header = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}], **more}
    ).encode()
    return header + data, str(len(header))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": [1, 2, 3, None]}, "must be FP32 numbers, got null"),
        ({"data": [1, 2, 3, "4"]}, "must be FP32 numbers, got str"),
        ({"data": [1, 2, 3, True]}, "must be FP32 numbers, got bool"),
        ({"data": [1, 2, 3, 1e39]}, "values must be finite, got inf"),
        ({"data": [1, 2, 3]}, "must have 4 values, got 3"),
        ({"data": []}, "must have 4 values, got 0"),
        ({"data": [[1, 2], 3, 4]}, "at the same depth"),
        ({"data": None}, "must have its data as a list"),
        ({"data": {"a": 1}}, "must have its data as a list"),
        ({"shape": [4]}, "shape must be [-1, 4], got [4]"),
        ({"shape": [1, 1, 4]}, "shape must be [-1, 4], got [1, 1, 4]"),
        ({"shape": [2, 2]}, "shape must be [-1, 4], got [2, 2]"),
        ({"shape": [0, 4], "data": []}, "at least one sample, got 0"),
        ({"shape": [1, -4]}, "a shape of sizes >= 0"),
        ({"shape": [1, 4.0]}, "a shape of sizes >= 0"),
        ({"shape": [2**40, 2**40]}, f"must have {2**80} values, got 4"),
        ({"shape": [1] * 9}, "a shape of at most 8 sizes"),
        ({"shape": "4"}, "a shape of at most 8 sizes"),
        ({"datatype": "BF16"}, "datatype must be one of BOOL, UINT8"),
        ({"datatype": "float32"}, "got 'float32'"),
        ({"datatype": 3}, "a name and a datatype"),
        ({"datatype": "BYTES", "data": ["1", "2", "3", "4"]}, "must be FP32, got object"),
        ({"datatype": "BOOL", "data": [True] * 4}, None),
        ({"name": "y"}, "input 'x' is missing, got 'y'"),
        ({"name": ""}, "input 'x' is missing"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared_memory_region is an extension"),
        ({"parameters": {"binary_data_size": 16}}, "either data or a binary_data_size"),
        ({"parameters": 1}, "must be an object, got int"),
    ],
)
def test_a_wrong_tensor_is_a_clear_error(here, changes, expected):
    """Dtype, rank, shape, name, values: what is wrong is said, as the protocol's error object."""
    status, answer, _ = here.ask("POST", INFER, {"inputs": [{**X, **changes}]})
    if expected is None:  # truth values are whole numbers, which floats hold
        assert 200 == status
    else:
        assert 400 == status
        assert expected in answer["error"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b"{}", "a list of inputs"),
        (b'{"inputs": {}}', "a list of inputs"),
        (b'{"inputs": []}', "input 'x' is missing, got nothing"),
        (b'{"inputs": [1]}', "must be an object, got int"),
        (b'{"inputs": [], "inputs": []}', "stands twice"),
        (b"[" * 100_000, "nested at most"),
        (b'{"id": "a b", "inputs": []}', "1 to 128 printable ASCII"),
        (b'{"id": [1], "inputs": []}', "1 to 128 printable ASCII"),
        (json.dumps({"inputs": [X, X]}).encode(), "a name of its own"),
        (json.dumps({"inputs": [X, {**X, "name": "z"}]}).encode(), "'z' is not in the contract"),
        (json.dumps({"inputs": [X], "outputs": 1}).encode(), "outputs must be a list"),
        (json.dumps({"inputs": [X], "outputs": [{}]}).encode(), "an object with a name"),
        (json.dumps({"inputs": [X], "outputs": [{"name": "q"}]}).encode(), "does not have: 'q'"),
        (b'{"inputs": [%s]}' % json.dumps(X).replace("4]}", "NaN]}").encode(), "NaN is not a JSON"),
        (b'{"inputs": [%s]}' % json.dumps(X).replace("4]}", "-Infinity]}").encode(), "Infinity"),
        (b'{"inputs": [%s]}' % json.dumps(X).replace("4]}", "1e999]}").encode(), "must be finite"),
    ],
)
def test_a_wrong_document_is_a_clear_error(here, body, expected):
    """Whatever the body is, the answer is 400 with one line."""
    status, answer, _ = here.ask("POST", INFER, body)
    assert 400 == status
    assert expected in answer["error"]


@pytest.mark.parametrize(
    ("body", "size", "expected"),
    [
        (*binary([1, 4], b"\0" * 12), "must have 16 bytes, got 12"),
        (*binary([1, 4], b"\0" * 12, size=16), "must have 16 bytes of binary data, got 12"),
        (*binary([1, 4], b"\0" * 20, size=16), "4 bytes of binary data belong to no input"),
        (*binary([1, 4], b"", size=2**70), "bytes of binary data, got 0"),
        (*binary([1, 4], b"", size=-1), "a binary_data_size >= 0"),
        (*binary([1, 4], b"", size="16"), "a binary_data_size >= 0"),
        (*binary([1, 4], b"\0" * 8, "BF16"), "got 'BF16'"),
        (*binary([1, 4], b"\0" * 8, "FP16"), None),
        (*binary([1, 4], struct.pack("<4f", 1, 2, 3, np.nan)), "values must be finite, got nan"),
        (*binary([1, 4], struct.pack("<4f", 1, 2, np.inf, 3)), "values must be finite, got inf"),
        (*binary([1, 4], b"\0\1\2\1", "BOOL"), "BOOL bytes of 0 and 1"),
        (*binary([2], b"\1\0\0\0a\2\0\0\0b", "BYTES"), "its last value is cut off"),
        (*binary([2], b"\1\0\0\0a\1\0\0\0b\0\0\0\0", "BYTES"), "must have 2 values, got 3"),
        (*binary([2**60], b"\1\0\0\0a", "BYTES"), "must have at least"),
        (*binary([1], b"\1\0\0\0\xff", "BYTES"), "must be UTF-8"),
        (b"{}", "3", "the JSON in front of binary data must have 1 to 2 bytes"),
        (b"{}", "0", "the JSON in front of binary data must have 1 to 2 bytes"),
        (b"{}", "-1", "must be a number, got -1"),
        (b"{}", "1e3", "must be a number"),
        (b"{}", "9" * 30, "must be a number"),
        (binary([1, 4], b"\0" * 16)[0], "2", "not valid JSON"),
    ],
)
def test_wrong_binary_data_is_a_clear_error(here, body, size, expected):
    """Sizes that do not add up and bytes that are no values are refused."""
    status, answer, _ = here.ask("POST", INFER, body, Inference_Header_Content_Length=size)
    if expected is None:
        assert 200 == status
    else:
        assert 400 == status
        assert expected in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "expected"),
    [
        ("GET", "/", {}, 404, "there is nothing at /"),
        ("GET", "/v2/../etc/passwd", {}, 404, "there is nothing at"),
        ("POST", "/v2/models//infer", {}, 404, "model '' is not on this device"),
        ("POST", "/v2/models/%2e%2e/infer", {}, 404, "model '..' is not on this device"),
        ("POST", "/v2/models/tiny/versions/9/infer", {}, 404, "1.0.0 does"),
        ("GET", INFER, {}, 405, "method must be POST, got GET"),
        ("DELETE", "/v2/models/tiny", {}, 405, "method must be GET, got DELETE"),
        ("GET", "/v1/models/tiny:predict", {}, 405, "method must be POST, got GET"),
        ("OPTIONS", INFER, {}, 405, "got OPTIONS"),
        ("POST", INFER, {"Content_Type": "multipart/form-data; boundary=x"}, 415, "Content-Type"),
        ("POST", INFER, {"Content_Type": "application/json; charset=latin-1"}, 415, "UTF-8"),
        ("POST", INFER, {"Content_Encoding": "br"}, 415, "gzip or deflate, got br"),
        ("POST", INFER, {"Content_Encoding": "gzip"}, 400, "cannot be decompressed"),
        ("POST", INFER, {"Origin": "http://evil.example"}, 403, "web pages"),
        ("GET", "/" + "a" * 3000, {}, 414, "at most 2048 characters"),
        ("GET", "/v2", {"X_Long": "a" * 20_000}, 431, "at most 16384 bytes"),
    ],
)
def test_a_wrong_request_has_the_right_status(here, method, path, headers, status, expected):
    """Path, method, type, encoding, size of headers: each has its status, and an error object."""
    body = b"{}" if method == "POST" else None
    found, answer, _ = here.ask(method, path, body, **headers)
    assert status == found
    assert expected in answer["error"]


def test_a_zip_bomb_is_not_blown_up(here):
    """What a compressed body holds is bounded like any body."""
    import gzip

    body = gzip.compress(b"0" * 50_000_000)
    assert len(body) < 1_000_000
    status, answer, _ = here.ask("POST", INFER, body, Content_Encoding="gzip")
    assert 413 == status
    assert "at most 1000000 bytes when decompressed" in answer["error"]


def talk(here, *parts):
    """Send raw bytes on a connection; everything that comes back until it is closed."""
    with here.dial() as door:
        for part in parts:
            door.sendall(part)
        return read_all(door)


def head(*lines, path=INFER, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("Content-Length: 2", "Content-Length: 3"), 400),
        (head("Content-Length: 2", "Transfer-Encoding: chunked"), 400),
        (head("Content-Length: -2"), 400),
        (head("Content-Length: 2_0"), 400),
        (head("Transfer-Encoding: gzip"), 501),
        (head("Transfer-Encoding: chunked") + b"zz\r\n", 400),
        (head("Content-Length: 100000000"), 413),
        (head("Content-Length: " + "9" * 19), 413),
        (head("A b: c"), 400),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\n\r\n", 400),  # without Host
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n", 400),  # TLS
        (b"GET /v2 HTTP/3.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_what_is_not_http_is_refused_and_closed(here, request_bytes, status):
    """Contradictions about where a request ends are never guessed at."""
    answer = talk(here, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"connection: close" in answer.lower()
    assert b'{"error":' in answer


def test_a_body_that_grows_too_large_is_refused_while_it_comes(here):
    """A chunked body says no size; the answer comes though the rest is still being sent."""
    chunk = b"20000\r\n" + b"0" * 0x20000 + b"\r\n"
    answer = talk(here, head("Transfer-Encoding: chunked"), *[chunk] * 12)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]


def test_a_chunked_body_is_read(here):
    """Clients that do not know the size beforehand are answered."""
    body = json.dumps({"inputs": [X]}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:]))
    lines = ("Transfer-Encoding: chunked", "Connection: close")
    assert talk(here, head(*lines), chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("start", "late", "what"),
    [
        (b"", "header_s", b"headers took too long"),
        (b"POST /v2", "header_s", b"headers took too long"),
        (head("Content-Length: 100") + b"{", "body_s", b"body took too long"),
    ],
)
def test_a_slow_client_is_let_go(bundle, start, late, what):
    """Whoever does not send its request in time is told so."""
    limits = {"header_s": 60.0, "body_s": 60.0, "sweep_s": 0.02} | {late: 0.2}
    with http_here(limits=limits) as here:
        here.put("tiny", bundle)
        answer = talk(here, start)
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:200]
    assert what in answer


class Line(asyncio.Transport):
    """A connection whose bytes a test can see; and the door that it leads to."""

    def __init__(self, **limits):
        super().__init__()
        self.limits = HttpLimits(max_body_bytes=10**6, max_connections=1, **limits)
        self.traffic = Traffic()
        self.site = self
        self.sent = b""
        self.ended = ""

    def admit(self, _head):
        return self

    def entered(self, _connection):
        return True

    def left(self, _connection):
        pass

    def write(self, data):
        self.sent += data

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended = "half"

    def close(self):
        self.ended = "closed"

    def abort(self):
        self.ended = "aborted"


def connect(**limits):
    line = Line(**limits)
    connection = Connection(line, is_local=False)
    connection.connection_made(line)
    return line, connection


def test_a_body_that_keeps_coming_has_more_time():
    """A large body over a slow line is no attack: each 100 KB give more time."""
    line, connection = connect(body_s=10.0, body_rate=100_000)
    now_s = time.monotonic()
    connection.data_received(head("Content-Length: 500000"))
    connection.data_received(b"0" * 250_000)
    connection.check(now_s + 29.0)
    assert b"" == line.sent
    connection.check(now_s + 31.0 + time.monotonic() - now_s)
    assert line.sent.startswith(b"HTTP/1.1 408 ")
    assert "half" == line.ended
    connection.data_received(b"0" * 250_000)  # read on, so that the answer is not lost
    connection.check(now_s + 31.0)
    assert "closed" == line.ended


def test_a_client_that_does_not_take_its_answer_is_let_go():
    """What it was sent would otherwise stay in memory for ever."""
    line, connection = connect(write_s=30.0)
    connection.pause_writing()
    now_s = time.monotonic()
    connection.check(now_s + 29.0)
    assert "" == line.ended
    connection.check(now_s + 31.0)
    assert "aborted" == line.ended


def test_expect_100_is_answered_before_the_body(here):
    """Curl waits for it before it sends a large body; a refusal comes instead of it."""
    body = json.dumps({"inputs": [X]}).encode()
    with here.dial() as door:
        lines = (f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
        door.sendall(head(*lines))
        assert door.recv(100).startswith(b"HTTP/1.1 100 ")
        door.sendall(body)
        assert read_all(door).startswith(b"HTTP/1.1 200 ")
    lines = ("Content-Length: 5", "Expect: 100-continue")
    answer = talk(here, head(*lines, path="/nothing"))
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_pipelined_requests_are_answered_in_order(here):
    """Requests that come at once are answered one after the other, on one connection."""
    bodies = [json.dumps({"id": f"r{i}", "inputs": [X]}).encode() for i in range(20)]
    requests = [head(f"Content-Length: {len(b)}") + b for b in bodies[:-1]]
    last = head(f"Content-Length: {len(bodies[-1])}", "Connection: close") + bodies[-1]
    answer = talk(here, b"".join(requests) + last).decode()
    ids = [part.partition('"')[0] for part in answer.split('"id":"')[1:]]
    assert [f"r{i}" for i in range(20)] == ids


def test_a_client_that_ends_its_half_is_answered(here):
    """`nc` shuts its side after the request; that does not mean that it went away."""
    body = json.dumps({"inputs": [X]}).encode()
    with here.dial() as door:
        door.sendall(head(f"Content-Length: {len(body)}") + body)
        door.shutdown(socket.SHUT_WR)
        assert read_all(door).startswith(b"HTTP/1.1 200 ")


def test_head_has_no_body_and_http_1_0_is_answered(here):
    """Both have the headers that GET has; HTTP/1.0 ends the connection."""
    with here.dial() as door:
        door.sendall(head("Connection: close", path="/v2/health/live", method="HEAD"))
        answer = read_all(door)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    answer = talk(here, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"live":true}')


class Gate:
    """A model that answers when it may."""

    def __init__(self, served):
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self._served = served
        self._predict = served.predict
        served.predict = self

    def __call__(self, inputs):
        self.entered.release()
        assert self.open.wait(DEADLINE_S)
        return self._predict(inputs)


def test_a_client_gone_mid_run_costs_nothing(bundle):
    """The model ends what it does, its answer goes nowhere, the next caller is answered."""
    with http_here() as here:
        served = here.put("tiny", bundle)
        gate = Gate(served)
        body = json.dumps({"inputs": [X]}).encode()
        with here.dial() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            door.sendall(head(f"Content-Length: {len(body)}") + body)
            assert gate.entered.acquire(timeout=DEADLINE_S)
        wait_until(lambda: here.service.server.traffic.open_connections == 0, "connection is gone")
        gate.open.set()
        wait_until(lambda: served.requests == 1, "the run ends")
        assert 200 == here.ask("POST", INFER, {"inputs": [X]})[0]
        assert 0 == here.inference.running


def test_more_requests_than_may_wait_are_told_so(bundle):
    """503 with the time after which to ask again; what waits is answered."""
    with http_here(pending=2) as here, ThreadPoolExecutor(2) as pool:
        gate = Gate(here.put("tiny", bundle))
        ask = (here.ask, "POST", INFER, {"inputs": [X]})
        waiting = [pool.submit(*ask) for _ in range(2)]
        for _ in waiting:
            assert gate.entered.acquire(timeout=DEADLINE_S)
        status, answer, headers = here.ask(*ask[1:])
        assert (503, "1") == (status, headers["retry-after"])
        assert "device is busy: 2 requests are waiting" in answer["error"]
        gate.open.set()
        assert [200, 200] == [one.result(DEADLINE_S)[0] for one in waiting]


def test_more_connections_than_allowed_are_told_so(bundle):
    """503, and the connection is closed; those that are there go on."""
    with http_here(max_connections=2) as here, contextlib.ExitStack() as stack:
        here.put("tiny", bundle)
        doors = [stack.enter_context(here.dial()) for _ in range(2)]
        wait_until(lambda: here.service.server.traffic.open_connections == 2, "both are in")
        with here.dial() as third:
            answer = read_all(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"there are 2 connections already" in answer
        body = json.dumps({"inputs": [X]}).encode()
        doors[0].sendall(head(f"Content-Length: {len(body)}", "Connection: close") + body)
        assert read_all(doors[0]).startswith(b"HTTP/1.1 200 ")


def test_bodies_have_a_bound_together(bundle):
    """Large bodies that are begun and never ended must not fill a device's memory."""
    with http_here(max_body_mb=0.1) as here, contextlib.ExitStack() as stack:
        here.put("tiny", bundle)
        start = head("Content-Length: 100000") + b" " * 90_000
        for _ in range(4):
            stack.enter_context(here.dial()).sendall(start)
        traffic = here.service.server.traffic
        wait_until(lambda: traffic.held_bytes == 360_000, "four bodies are there")
        assert talk(here, start).startswith(b"HTTP/1.1 503 ")
        assert 200 == here.ask("POST", INFER, {"inputs": [X]})[0]
        stack.close()
        wait_until(lambda: traffic.held_bytes == 0, "all is free again")


@pytest.mark.parametrize("most", [128, 1000])
def test_a_thousand_parallel_requests(bundle, most):
    """Each gets an answer or a clear refusal, and nothing is left behind."""
    with http_here(max_connections=most, pending=64) as here, contextlib.ExitStack() as stack:
        here.put("tiny", bundle)
        body = json.dumps({"inputs": [X]}).encode()
        request = head(f"Content-Length: {len(body)}", "Connection: close") + body
        doors = [stack.enter_context(_dial_patiently(here)) for _ in range(_many())]
        for door in doors:
            door.sendall(request)
        answers = [read_all(door) for door in doors]
        statuses = {answer[:12] for answer in answers}
        assert statuses <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        assert b"HTTP/1.1 200" in statuses
        wait_until(lambda: here.service.server.traffic.open_connections == 0, "all are gone")
        assert 0 == here.inference.running
        assert 200 == here.ask("POST", INFER, {"inputs": [X]})[0]


def _many():
    """1,000, or what this process may open: both ends of each connection are here."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2400 <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2400), hard))
        soft = max(soft, 2400)
    return min(1000, (soft - 300) // 2)


def _dial_patiently(here):
    door = socket.socket()
    door.settimeout(DEADLINE_S)
    door.connect(("127.0.0.1", here.port))
    return door


def test_models_that_are_being_loaded(bundle):
    """Ready says no with the protocol's 4xx, infer asks to come again, live says yes."""
    with http_here() as here:
        here.started = False
        here.expected.add("tiny")
        assert (200, {"live": True}) == here.ask("GET", "/v2/health/live")[:2]
        assert (400, {"error": "not ready: tiny being loaded"}) == here.ask(
            "GET", "/v2/health/ready"
        )[:2]
        assert 400 == here.ask("GET", "/v2/models/tiny/ready")[0]
        status, answer, headers = here.ask("POST", INFER, {"inputs": [X]})
        assert (503, "model 'tiny' is being loaded") == (status, answer["error"])
        assert "1" == headers["retry-after"]
        (state,) = here.ask("GET", "/v1/models/tiny")[1]["model_version_status"]
        assert "LOADING" == state["state"]
        here.put("tiny", bundle)
        here.started = True
        assert 200 == here.ask("GET", "/v2/health/ready")[0]


def test_a_defect_of_ours_is_500_and_no_traceback(bundle, caplog):
    """The caller learns that it was not its fault; the log has the traceback."""
    with http_here() as here:
        served = here.put("tiny", bundle)

        def broken(_):
            raise ZeroDivisionError("secret")

        served.predict = broken
        status, answer, _ = here.ask("POST", INFER, {"inputs": [X]})
    assert (500, {"error": "the device failed; its log tells why"}) == (status, answer)
    assert "ZeroDivisionError: secret" in caplog.text


TOKEN = "0123456789abcdef"


def test_a_token_is_asked_for_except_by_health(bundle, tmp_path):
    """Live and ready need none; everything else does, and a wrong one is as good as none."""
    (tmp_path / "token").write_text(f"{TOKEN}\nnote\n")
    with http_here(token_file=str(tmp_path / "token")) as here:
        here.put("tiny", bundle)
        assert 200 == here.ask("GET", "/v2/health/live")[0]
        assert 200 == here.ask("GET", "/v2/health/ready")[0]
        for path in ("/metrics", "/v2", "/v2/models/tiny", "/nothing"):
            status, answer, headers = here.ask("GET", path)
            assert (401, "a bearer token is needed") == (status, answer["error"])
            assert headers["www-authenticate"].startswith("Bearer")
        for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}"):
            assert 401 == here.ask("POST", INFER, {"inputs": [X]}, Authorization=wrong)[0]
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert 200 == here.ask("POST", INFER, {"inputs": [X]}, **right)[0]
        # with a token a web page may ask: it was given one
        assert 200 == here.ask("GET", "/v2", **right, Origin="http://panel.example")[0]


def test_tls_takes_a_foreign_client(bundle, tmp_path):
    """With a certificate only TLS is spoken, and a foreign client comes in with the token."""
    import tritonclient.http as triton

    cert, key = write_self_signed(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    files = {"cert_file": str(cert), "key_file": str(key)}
    with http_here(token_file=str(tmp_path / "token"), **files) as here:
        here.put("tiny", bundle)
        client = triton.InferenceServerClient(
            f"localhost:{here.port}",
            ssl=True,
            ssl_context_factory=lambda: ssl.create_default_context(cafile=str(cert)),
        )
        x = np.ones((1, 4), np.float32)
        tensor = triton.InferInput("x", [1, 4], "FP32").set_data_from_numpy(x)
        answer = client.infer("tiny", [tensor], headers={"Authorization": f"Bearer {TOKEN}"})
        assert (1, 3) == answer.as_numpy("probabilities").shape
        client.close()
        with here.dial() as door:  # no TLS
            door.sendall(head("Connection: close", path="/v2", method="GET"))
            with contextlib.suppress(ConnectionError):
                assert not read_all(door).startswith(b"HTTP/1.1 2")


def test_a_unix_socket_is_for_those_who_may_open_it(bundle, tmp_path):
    """Its mode is 0660, no token is asked for, and it goes when the server goes."""
    path = tmp_path / "http.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()  # left by a server that was killed
    (tmp_path / "token").write_text(TOKEN)
    with http_here(socket=str(path), token_file=str(tmp_path / "token")) as here:
        here.put("tiny", bundle)
        mode = path.stat().st_mode
        assert (True, 0o660) == (stat.S_ISSOCK(mode), stat.S_IMODE(mode))
        body = json.dumps({"inputs": [X]}).encode()
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(DEADLINE_S)
            door.connect(str(path))
            door.sendall(head(f"Content-Length: {len(body)}", "Connection: close") + body)
            assert read_all(door).startswith(b"HTTP/1.1 200 ")
        assert 401 == here.ask("POST", INFER, {"inputs": [X]})[0]
    assert not os.path.lexists(path)


def test_an_address_in_use_is_told_and_tried_again(bundle):
    """The agent does not end for it; a person learns of it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with http_here(listen=f"127.0.0.1:{port}") as here:
            assert [] == here.service.addresses
            ((kind, detail),) = here.notices
            assert "http" == kind
            assert detail.startswith(f"cannot listen at 127.0.0.1:{port}: ")
            taken.close()
            asyncio.run_coroutine_threadsafe(here.service.open(), here.loop).result(DEADLINE_S)
            assert [f"listen=127.0.0.1:{port}"] == here.service.addresses
            assert ("http", "") == here.notices[-1]
            here.put("tiny", bundle)
            assert 200 == here.ask("POST", INFER, {"inputs": [X]})[0]
