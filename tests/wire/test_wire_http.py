"""The HTTP client: proxies, certificates, redirects, credentials; and the parsers round it."""

import datetime
import ipaddress
import json
import socket
import threading
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from support.servers import Answering, Nginx, head, running

from edgepack.wire.errors import TransferError, WireError
from edgepack.wire.http import HttpClient, HttpSettings, parse_url, read_credentials
from edgepack.wire.http.connection import parse_proxy, proxy_for
from edgepack.wire.http.url import redirected
from edgepack.wire.oci import parse_reference
from edgepack.wire.oci.challenge import parse_challenge, token_url
from edgepack.wire.throttle import Throttle

NO_PROXY = HttpSettings(proxy="")


def get(url, settings=NO_PROXY, **headers):
    client = HttpClient(settings)
    try:
        with client.request("GET", parse_url(url), headers=headers) as response:
            response.expect(200)
            return response.read_all(1_000_000, "body")
    finally:
        client.close()


def tells_headers(asked, connection, number):
    body = json.dumps({"path": asked.path, **asked.headers}).encode()
    connection.sendall(head("200 OK", f"Content-Length: {len(body)}") + body)


def test_a_proxy_is_asked_for_the_whole_url():
    """With the proxy's own credentials, which the server does not see."""
    with Answering(tells_headers) as proxy:
        named = f"http://me:pw@127.0.0.1:{proxy.port}"
        told = json.loads(get("http://models.example/b?x=1", HttpSettings(proxy=named)))
    assert "http://models.example/b?x=1" == told["path"]
    assert "Basic bWU6cHc=" == told["Proxy-Authorization"]


def test_the_environment_names_proxies(monkeypatch):
    """`http_proxy` and `https_proxy`, but for what `no_proxy` lists; agent.toml overrules both."""
    monkeypatch.setenv("http_proxy", "http://a:1")
    monkeypatch.setenv("https_proxy", "b:2")
    monkeypatch.setenv("no_proxy", "near.example")
    found = {
        url: proxy_for(parse_url(url), HttpSettings())
        for url in ("http://far.example/", "https://far.example/", "http://near.example/")
    }
    assert ["a", "b", None] == [proxy and proxy.host for proxy in found.values()]
    assert None is proxy_for(parse_url("http://far.example/"), NO_PROXY)
    with pytest.raises(WireError, match="proxy must be"):
        parse_proxy("https://p:1")


def test_a_proxy_leads_to_https(tmp_path, authority):
    """By CONNECT; the certificate is checked through it."""
    key, cert = authority
    folder = tmp_path / "nginx"
    folder.mkdir()
    with running(Nginx(folder, tls=(cert, key))) as server, Tunnel(server.port) as proxy:
        (server.www / "b").write_bytes(b"secret model")
        settings = HttpSettings(proxy=f"http://127.0.0.1:{proxy.port}", ca_file=str(cert))
        assert b"secret model" == get(f"{server.url}/b", settings)
    assert [f"CONNECT 127.0.0.1:{server.port}"] == proxy.asked


def test_a_certificate_of_ones_own(tmp_path, authority):
    """Trusted where the settings name it, refused elsewhere in one line."""
    key, cert = authority
    folder = tmp_path / "nginx"
    folder.mkdir()
    with running(Nginx(folder, tls=(cert, key))) as server:
        (server.www / "b").write_bytes(b"x")
        assert b"x" == get(f"{server.url}/b", HttpSettings(proxy="", ca_file=str(cert)))
        with pytest.raises(TransferError, match="certificate is not trusted"):
            get(f"{server.url}/b")
        missing = HttpSettings(proxy="", ca_file=str(tmp_path / "none.pem"))
        with pytest.raises(TransferError, match="ca_file"):
            get(f"{server.url}/b", missing)


def test_a_redirect_does_not_take_the_password_along():
    """To another server it goes without."""
    with Answering(tells_headers) as second:

        def to_second(asked, connection, number):
            location = f"Location: {second.url}/there"
            connection.sendall(head("302 Found", location, "Content-Length: 0"))

        with Answering(to_second) as first:
            told = json.loads(get(f"{first.url}/b", Authorization="Basic c2VjcmV0"))
            assert "Basic c2VjcmV0" == first.asked[0].headers["Authorization"]
    assert ("/there", None) == (told["path"], told.get("Authorization"))


def test_a_redirect_never_leaves_tls():
    """From https to http it is refused."""
    with pytest.raises(WireError, match="from https to http"):
        redirected(parse_url("https://a/b"), "http://a/b")
    assert "https://a/c" == redirected(parse_url("https://a/b?q"), "c").full


def test_stopping_breaks_a_wait():
    """From another thread, whatever the server does."""
    with Answering(lambda _, connection, __: connection.recv(1)) as server:
        client = HttpClient(NO_PROXY)
        threading.Timer(0.3, client.stop).start()
        with (
            pytest.raises(TransferError, match="given up"),
            client.request("GET", parse_url(server.url)),
        ):
            pytest.fail("there is no answer")


@given(st.text(max_size=80))
def test_any_text_is_a_url_or_an_error(text):
    """Nothing else, and what is shown of it holds no secret."""
    for known in (text, f"http://{text}", f"https://u:s3cret@h/{text}?{text}"):
        with suppress(WireError):
            url = parse_url(known)
            assert url.scheme in ("http", "https")
            assert url.host
            assert "s3cret" not in url.shown


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_an_error(text):
    """What is one is written back as it was."""
    for known in (text, f"oci://{text}", f"oci://h/{text}", f"oci://h:1/a/b:{text}"):
        with suppress(WireError):
            assert known == str(parse_reference(known))


@pytest.mark.parametrize(
    "text",
    [
        "oci://h",
        "oci://h/",
        "oci://h/UPPER",
        "oci://h/a/../b",
        "oci://u:p@h/a",
        "oci://h/a:",
        "oci://h/a@sha256:00",
        "http://h/a",
        "oci://h/a b",
    ],
)
def test_what_is_no_reference(text):
    """Paths that lead out, passwords, half digests."""
    with pytest.raises(WireError, match="must be oci://"):
        parse_reference(text)


@given(st.text(max_size=200))
def test_any_header_is_a_challenge_or_an_error(text):
    """Whatever a registry says."""
    for known in (text, f"Bearer {text}", f'Bearer realm="{text}"'):
        with suppress(WireError):
            token_url(parse_challenge(known))


def test_a_challenge():
    """As docker's documentation has it."""
    header = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a:pull,push"'
    challenge = parse_challenge(header)
    assert "bearer" == challenge.scheme
    assert (
        "https://auth.example/token?service=r.example&scope=repository%3Aa%3Apull%2Cpush"
        == token_url(challenge).full
    )


@pytest.mark.parametrize("text", ["", "[]", '{"auths": []}', '{"auths": {"h": 1}}', "x" * 300_000])
def test_a_bad_credentials_file_tells_no_secret(tmp_path, text):
    """One line, whatever is in it."""
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(WireError, match="credentials"):
        read_credentials(path)


def test_a_throttle_lets_its_rate_through():
    """By a clock that only moves when somebody waits."""
    now = [0.0]
    throttle = Throttle(100_000, clock=lambda: now[0])
    sent = 0
    while sent < 1_000_000:
        sent += 10_000
        now[0] += throttle.delay_s(10_000)
    assert 9.0 <= now[0] <= 10.0


def test_a_low_rate_reads_a_little_often():
    """Never so much at once that the server would see a minute of silence."""
    waits = []

    class Noted(Throttle):
        def delay_s(self, size_bytes):
            waits.append(size_bytes)
            return 0.0

    body = bytes(40_000)
    answer = head("200 OK", f"Content-Length: {len(body)}") + body
    with Answering(lambda _, connection, __: connection.sendall(answer)) as server:
        client = HttpClient(NO_PROXY, Noted(8_000))
        with client.request("GET", parse_url(server.url)) as response:
            assert body == response.read_all(100_000, "body")
        client.close()
    assert len(answer) == sum(waits)
    assert max(waits) <= 2_000


class Tunnel:
    """A proxy that knows CONNECT only."""

    def __init__(self, port):
        self._target = port
        self.asked = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _serve(self):
        with suppress(OSError):
            inner, _ = self._listener.accept()
            request = b""
            while b"\r\n\r\n" not in request:
                request += inner.recv(4096)
            self.asked.append(request.split(b" HTTP/")[0].decode())
            outer = socket.create_connection(("127.0.0.1", self._target))
            inner.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: key file and certificate file."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "cert.pem"
