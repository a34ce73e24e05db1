"""Bundles in a registry: Debian's docker-registry, and one that wants tokens."""

import base64
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from support.fetching import fetch, fetcher, model_of, parts, store
from support.servers import Answering, DebianRegistry, head, running
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.config import FetchConfig
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.bundle import open_bundle, sign_bundle
from edgepack.fleet.registry import merged_index, pull, push
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.errors import TransferError, UnauthorizedError
from edgepack.wire.http import HttpClient, HttpSettings, read_credentials
from edgepack.wire.oci import Registry, parse_reference

WEIGHTS = np.random.default_rng(0).bytes(400_000)
AUTH = "auth:\n  htpasswd:\n    realm: tests\n    path: {}\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return PrivateKey.load(keygen(tmp_path_factory.mktemp("keys")).release_key)


@pytest.fixture
def bundle(tmp_path, release):
    return write_tiny_bundle(tmp_path, model=WEIGHTS, key=release)


def pushed(path, reference, credentials=None, **options):
    """Push a bundle's file."""
    client = HttpClient(HttpSettings(proxy=""))
    try:
        registry = Registry(client, parse_reference(reference), credentials)
        return push(registry, parse_reference(reference), open_bundle(path), **options)
    finally:
        client.close()


def pulled(reference, output, credentials=None):
    client = HttpClient(HttpSettings(proxy=""))
    try:
        registry = Registry(client, parse_reference(reference), credentials)
        return pull(registry, parse_reference(reference), output)
    finally:
        client.close()


def test_what_is_pushed_is_pulled_bit_by_bit(tmp_path, registry, bundle):
    """The file that comes back is the file that went."""
    done = pushed(bundle, f"oci://{registry.host}/models/tiny")
    assert f"oci://{registry.host}/models/tiny:1.0.0" == done.reference
    assert 1 == done.signatures
    found, path = pulled(done.reference, tmp_path / "again")
    assert bundle.read_bytes() == path.read_bytes()
    by_digest = f"oci://{registry.host}/models/tiny@{found.digest}"
    assert bundle.read_bytes() == pulled(by_digest, tmp_path / "third")[1].read_bytes()


def test_unchanged_blobs_are_not_sent_again(tmp_path, registry, bundle, release):
    """Pushed twice, nothing goes; a new version sends what is new of it."""
    reference = f"oci://{registry.host}/tiny"
    first = pushed(bundle, reference)
    assert first.total_bytes == first.sent_bytes
    assert 0 == pushed(bundle, reference).sent_bytes
    newer = write_tiny_bundle(tmp_path, version="1.1.0", model=WEIGHTS, key=release)
    second = pushed(newer, reference)
    assert 0 < second.sent_bytes < 10_000 < second.total_bytes
    elsewhere = pushed(bundle, f"oci://{registry.host}/other", mount_from="tiny")
    assert 0 == elsewhere.sent_bytes


def test_another_signature_joins_the_first(tmp_path, registry, bundle, release):
    """Signed again and pushed again, both signatures are found."""
    reference = f"oci://{registry.host}/tiny"
    pushed(bundle, reference)
    alone = write_tiny_bundle(tmp_path / "..", model=WEIGHTS, name="tiny")
    sign_bundle(alone, release, sequence=7)
    pushed(alone, reference)
    found, _ = pulled(f"{reference}:1.0.0", tmp_path / "both")
    assert 2 == len(found.signatures)


def test_a_device_fetches_from_a_registry(tmp_path, registry, bundle):
    """By the digest of the desired state, with the signatures that it names."""
    reference = pushed(bundle, f"oci://{registry.host}/tiny").reference
    fetched = fetch(tmp_path / "state", model_of(bundle, reference))
    assert 1 == len(fetched.signatures)


def test_a_device_finds_signatures_by_itself(tmp_path, registry, bundle):
    """A desired state that names none: the tag sha256-HEX lists them."""
    reference = pushed(bundle, f"oci://{registry.host}/tiny").reference
    model = replace(model_of(bundle, reference), signatures=(), manifest_size_bytes=0)
    assert 1 == len(fetch(tmp_path / "state", model).signatures)


def test_unchanged_weights_are_not_fetched_again(tmp_path, registry, bundle, release):
    """The registry's own log says so."""
    reference = f"oci://{registry.host}/tiny"
    pushed(bundle, reference)
    first = model_of(bundle, reference)
    store(tmp_path / "state", fetch(tmp_path / "state", first), first)
    newer = write_tiny_bundle(tmp_path, version="1.1.0", model=WEIGHTS, key=release)
    pushed(newer, reference)
    before = registry.log.read_text().count('"GET /v2/tiny/blobs')
    fetch(tmp_path / "state", model_of(newer, reference))
    asked = registry.log.read_text().count('"GET /v2/tiny/blobs') - before
    weights = next(
        layer.blob
        for layer in open_bundle(newer).manifest.layers
        if layer.path == "onnx-fp32/model.onnx"
    )
    assert 0 < asked < len(open_bundle(newer).blobs()) - 2
    tail = registry.log.read_text().splitlines()[-asked * 3 :]
    assert not [line for line in tail if f'"GET /v2/tiny/blobs/{weights.digest}' in line]


def test_a_registry_that_restarts_meanwhile(tmp_path, bundle):
    """What came is kept; when it is there again the fetch goes on."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running(DebianRegistry(folder)) as server:
        reference = pushed(bundle, f"oci://{server.host}/tiny").reference
        model = model_of(bundle, reference)
        landing = fetcher(tmp_path / "state")._blobs.landing_for(model.digest)
        layer = next(
            layer for layer in open_bundle(bundle).manifest.layers if layer.path.endswith("onnx")
        )
        landing._part(layer.blob.digest).write_bytes(WEIGHTS[:150_000])
        server.stop()
        with pytest.raises(FetchError):
            fetch(tmp_path / "state", model)
        assert [150_000] == list(parts(tmp_path / "state").values())
        server.start()
        fetch(tmp_path / "state", model)
        assert " 206 " in server.log.read_text()


def test_a_digest_that_is_not_the_wanted_one_is_refused(tmp_path, registry, bundle):
    """What the source names and what the desired state names must be one."""
    other = f"oci://{registry.host}/tiny@sha256:{'0' * 64}"
    with pytest.raises(RejectedError) as caught:
        fetch(tmp_path / "state", model_of(bundle, other))
    assert "wrong_bundle" == caught.value.reason


def test_what_is_not_there_is_a_failed_fetch(tmp_path, registry, bundle):
    """Pushed later, it is found later."""
    with pytest.raises(FetchError, match="does not have"):
        fetch(tmp_path / "state", model_of(bundle, f"oci://{registry.host}/tiny"))


def credentials(tmp_path, host, password="s3cret"):
    """What `docker login` would have written."""
    auth = base64.b64encode(f"press:{password}".encode()).decode()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}, "credsStore": "desktop"}))
    return path


def test_a_registry_with_passwords(tmp_path, bundle, caplog):
    """Basic credentials from a file open it; without or with wrong ones one line says so."""
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "htpasswd").write_text(DebianRegistry.HTPASSWD)
    with running(DebianRegistry(folder, auth=AUTH.format(folder / "htpasswd"))) as server:
        reference = f"oci://{server.host}/tiny"
        with pytest.raises(UnauthorizedError, match="wants credentials"):
            pushed(bundle, reference)
        wrong = read_credentials(credentials(tmp_path, server.host, "oh"))
        with pytest.raises(UnauthorizedError, match="other credentials"):
            pushed(bundle, reference, wrong)
        file = credentials(tmp_path, server.host)
        known = read_credentials(file)
        pushed(bundle, reference, known)
        model = model_of(bundle, reference)
        with pytest.raises(FetchError, match="wants credentials"):
            fetch(tmp_path / "state", model)
        config = FetchConfig(proxy="", credentials_file=str(file))
        fetch(tmp_path / "state", model, config=config)
    assert "s3cret" not in caplog.text + repr(known) + repr(config)


class TokenRegistry:
    """A registry that wants bearer tokens, in front of blobs in memory."""

    def __init__(self, path, *, realm=None):
        bundle = open_bundle(path)
        self.blobs = {blob.digest: bundle.read_blob(blob.digest) for blob in bundle.blobs()}
        self.realm = realm
        self.tokens = []

    def __call__(self, asked, connection, number):
        base = f"http://{asked.headers['Host']}"
        path, _, query = asked.path.partition("?")
        if path == "/token":
            self.tokens.append((query, asked.headers.get("Authorization")))
            body = json.dumps({"access_token": "opensesame"}).encode()
            connection.sendall(head("200 OK", f"Content-Length: {len(body)}") + body)
            return
        if asked.headers.get("Authorization") != "Bearer opensesame":
            realm = self.realm or f"{base}/token"
            challenge = f'Bearer realm="{realm}",service="reg",scope="repository:tiny:pull"'
            connection.sendall(
                head("401 No", f"WWW-Authenticate: {challenge}", "Content-Length: 0")
            )
            return
        data = self.blobs.get(path.rpartition("/")[2])
        if data is None:
            connection.sendall(head("404 Not Found", "Content-Length: 0"))
            return
        connection.sendall(head("200 OK", f"Content-Length: {len(data)}") + data)


def test_a_registry_with_tokens(tmp_path, bundle):
    """The challenge is answered with a token, which the credentials buy, once."""
    inner = TokenRegistry(bundle)
    with Answering(inner) as server:
        host = server.url.removeprefix("http://")
        config = FetchConfig(proxy="", credentials_file=str(credentials(tmp_path, host)))
        fetch(tmp_path / "state", model_of(bundle, f"oci://{host}/tiny"), config=config)
    ((query, authorization),) = inner.tokens
    assert "service=reg&scope=repository%3Atiny%3Apull" == query
    assert "Basic " + base64.b64encode(b"press:s3cret").decode() == authorization


def test_a_password_does_not_go_to_a_token_server_without_tls(tmp_path, bundle):
    """A registry may name any place; ours is asked only where nobody can listen."""
    inner = TokenRegistry(bundle, realm="http://token.example/t")
    with Answering(inner) as server:
        host = server.url.removeprefix("http://")
        registry = Registry(HttpClient(HttpSettings(proxy="")), parse_reference(f"oci://{host}/x"))
        registry._session._plain = False  # as a registry with TLS would be
        with pytest.raises(UnauthorizedError, match="is not https"):
            registry.manifest("latest", 1000)


def test_a_registry_without_ranges_goes_on_where_it_broke(tmp_path, bundle):
    """It gives the whole blob; what is here is passed over."""
    inner = TokenRegistry(bundle)
    with Answering(inner) as server:
        host = server.url.removeprefix("http://")
        model = model_of(bundle, f"oci://{host}/tiny")
        landing = fetcher(tmp_path / "state")._blobs.landing_for(model.digest)
        layer = next(
            layer for layer in open_bundle(bundle).manifest.layers if layer.path.endswith("onnx")
        )
        landing._part(layer.blob.digest).write_bytes(WEIGHTS[:150_000])
        fetch(tmp_path / "state", model)


def test_two_devices_fetch_at_once(tmp_path, registry, bundle):
    """Each into its own state."""
    reference = pushed(bundle, f"oci://{registry.host}/tiny").reference
    model = model_of(bundle, reference)
    failures = []

    def one(name):
        try:
            fetch(tmp_path / name, model)
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one, args=(f"state{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures


def test_an_upload_does_not_follow_a_registry_elsewhere(tmp_path, bundle):
    """Credentials and weights go to the registry that was named, and nowhere else."""

    def answer(asked, connection, number):
        if asked.method == "HEAD":
            connection.sendall(head("404 Not Found", "Content-Length: 0"))
        else:
            location = "Location: http://192.0.2.1/steal"
            connection.sendall(head("202 Accepted", location, "Content-Length: 0"))

    with (
        Answering(answer) as server,
        pytest.raises(TransferError, match="sends an upload elsewhere"),
    ):
        pushed(bundle, f"oci://{server.url.removeprefix('http://')}/x")


def test_what_else_refers_to_a_manifest_stays():
    """Signatures join an index that another tool has written; its annotations stay."""
    from edgepack.bundle import Descriptor

    theirs = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": "sha256:" + "1" * 64,
                "size": 5,
                "artifactType": "application/x.sbom",
                "annotations": {"a": "b"},
            }
        ],
    }
    ours = Descriptor(digest="sha256:" + "2" * 64, size_bytes=7)
    merged = json.loads(merged_index(json.dumps(theirs).encode(), [ours]))
    assert theirs["manifests"][0] == merged["manifests"][0]
    assert "sha256:" + "2" * 64 == merged["manifests"][1]["digest"]
