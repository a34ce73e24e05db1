"""The conformance suite: our server keeps every rule, and one that does not is found out."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.http_here import http_here
from support.tiny_bundle import write_tiny_bundle
from support.word_bundle import write_word_bundle

from edgepack.cli.main import main
from edgepack.fleet.conformance import Outcome, Peer, check
from edgepack.fleet.errors import TargetError
from edgepack.wire.errors import TransferError

METADATA = {
    "name": "tiny",
    "platform": "none",
    "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with http_here() as server:
        server.put("tiny", write_tiny_bundle(tmp_path_factory.mktemp("bundle")))
        yield server


class Careless(BaseHTTPRequestHandler):
    """Says yes to everything."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one packet, not two with a wait between them

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({**METADATA, "extensions": ["binary_tensor_data"], "version": "1"})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def careless():
    server = HTTPServer(("127.0.0.1", 0), Careless)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_our_server_keeps_every_rule(here):
    """No rule is broken, and none is left out."""
    with Peer(f"http://127.0.0.1:{here.port}") as peer:
        results = list(check(peer, "tiny", tensorflow=True))
    wrong = [(r.name, r.outcome, r.detail) for r in results if r.outcome is not Outcome.PASS]
    assert [] == wrong
    assert len({result.name for result in results}) == len(results) > 40


def test_a_server_that_says_yes_to_everything_is_found_out(careless):
    """Every rule that such a server breaks fails, with what it did."""
    with Peer(careless) as peer:
        outcomes = {result.name: result for result in check(peer, "tiny", tensorflow=True)}
    passed = {name for name, result in outcomes.items() if result.outcome is Outcome.PASS}
    expected = {"live", "ready", "model-ready", "server-metadata", "model-metadata", "keep-alive"}
    assert expected == passed
    assert outcomes["error-json"].detail.startswith("status 200: ")
    assert all(result.detail for name, result in outcomes.items() if name not in expected)


def test_what_cannot_be_asked_is_an_error_of_ours(here):
    """An unknown model, no server, and no URL are no broken rules."""
    unknown = pytest.raises(TargetError, match="must describe the inputs of model 'other'")
    with Peer(f"http://127.0.0.1:{here.port}") as peer, unknown:
        list(check(peer, "other"))
    with Peer("http://127.0.0.1:1") as peer, pytest.raises(TransferError, match="broke off"):
        list(check(peer, "tiny"))
    for url in ("127.0.0.1:1", "ftp://h", "http://h:x", "http://h/v2", "unix:"):
        with pytest.raises(TargetError, match="url "):
            Peer(url)


def test_the_command_shows_each_rule_with_its_source(here, careless, capsys):
    """0 where all are kept, 6 where one is not; each line names where the rule stands."""
    assert 0 == main(["conformance", f"http://127.0.0.1:{here.port}", "--model", "tiny"])
    out = capsys.readouterr().out
    assert "PASS  live               GET v2/health/live is 200  [Open Inference" in out
    assert out.endswith(" pass, 0 fail, 0 skip\n")
    assert 6 == main(["conformance", careless, "--model", "tiny", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"pass", "fail"} == {line["outcome"] for line in lines}


def test_a_model_that_knows_only_some_words(here, tmp_path, capsys):
    """`--text` names one that it knows; without it every inference fails, and that is told."""
    here.put("words", write_word_bundle(tmp_path))
    words = ["conformance", f"http://127.0.0.1:{here.port}", "--model", "words", "--tensorflow"]

    def broken(*more):
        code = main([*words, "--json", *more])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, {line["name"] for line in lines if line["outcome"] == "fail"}

    assert (0, set()) == broken("--text", "left")
    code, failed = broken()
    assert (6, True) == (code, {"id", "binary-in"} <= failed), failed


def test_a_token_and_a_unix_socket(tmp_path, capsys):
    """The suite reaches whatever clients reach."""
    path, token = tmp_path / "http.sock", tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with http_here(socket=str(path), token_file=str(token)) as here:
        here.put("tiny", write_tiny_bundle(tmp_path))
        arguments = ["--model", "tiny", "--json"]
        assert 0 == main(["conformance", f"unix:{path}", *arguments])
        url = f"http://127.0.0.1:{here.port}"
        assert 2 == main(["conformance", url, *arguments])
        assert 0 == main(["conformance", url, *arguments, "--token-file", str(token)])
