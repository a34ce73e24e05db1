"""Fetching by a real agent process: killed in the middle, two bundles at once, from a registry."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import onnx
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.brokers import Mosquitto
from support.brokers import running as running_broker
from support.fetching import model_of, parts
from support.servers import Answering, head
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.bundle import open_bundle
from edgepack.fleet.registry import push
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.http import HttpClient, HttpSettings
from edgepack.wire.oci import Registry, parse_reference

QUICK = "[probation]\nrequests = 5\nseconds = 0.3\n"
SLOW = "[limits]\nself_test_compare_s = 0.05\ndownload_kbps = 30000\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def broker(tmp_path):
    with running_broker(Mosquitto(tmp_path)) as made:
        yield made


@pytest.fixture
def operator(broker, keys):
    made = Operator(broker.port, keys)
    yield made
    made.close()


def heavy_bundle(folder, keys, *, name="tiny", size_bytes=400_000):
    """A bundle that works, whose model file is as large as one likes."""
    model = onnx.load_from_string(tiny_model().onnx())
    model.doc_string = "x" * size_bytes
    key = PrivateKey.load(keys.release_key)
    return write_tiny_bundle(folder, name=name, model=model.SerializeToString(), key=key)


def ranges_of(data):
    def answer(asked, connection):
        first, _, last = asked.headers["Range"].removeprefix("bytes=").partition("-")
        body = data[int(first) : int(last) + 1]
        said = f"Content-Range: bytes {first}-{int(first) + len(body) - 1}/{len(data)}"
        length = f"Content-Length: {len(body)}"
        return head("206 Partial Content", said, length), body

    return answer


def test_a_kill_in_the_middle_of_a_fetch(tmp_path, operator, broker, keys):
    """Killed with half of the weights on disk, the next run asks for the other half."""
    bundle = heavy_bundle(tmp_path, keys)
    honest = ranges_of(bundle.read_bytes())
    killed = False

    def answer(asked, connection, number):
        said, body = honest(asked, connection)
        if not killed and len(body) > 100_000:
            connection.sendall(said + body[:200_000])
            time.sleep(20)
        else:
            connection.sendall(said + body)

    agent = AgentProcess(tmp_path / "device", keys, broker.port, probation=QUICK)
    with Answering(answer) as server, running(agent):
        operator.desire(model_of(bundle, f"{server.url}/b"))
        state = tmp_path / "device" / "state"
        wait_until(lambda: sum(parts(state).values()) == 200_000, "half of it is here")
        agent.stop(signal.SIGKILL)
        killed = True
        before = len(server.asked)
        agent.start()
        operator.wait_phase("confirmed")
        asked = [one.headers["Range"] for one in server.asked[before:]]
        starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in asked]
        sizes = [
            int(one.split("-")[1]) - start + 1 for one, start in zip(asked, starts, strict=True)
        ]
        assert max(sizes) < 220_000
        assert [] == list((state / "staging" / "fetched").iterdir())


def test_two_bundles_and_a_file_at_once(tmp_path, operator, broker, keys, nginx):
    """Two that are desired and one that somebody brings all end well, whoever comes first."""
    one = heavy_bundle(tmp_path, keys, size_bytes=2_000_000)
    two = heavy_bundle(tmp_path, keys, name="second", size_bytes=2_000_000)
    brought = heavy_bundle(tmp_path, keys, name="third")
    for path in (one, two):
        (nginx.www / path.name).write_bytes(path.read_bytes())
    sections = {"probation": QUICK, "limits": SLOW}
    with running(AgentProcess(tmp_path / "device", keys, broker.port, **sections)) as agent:
        operator.desire(*(model_of(path, f"{nginx.url}/{path.name}") for path in (one, two)))
        wait_until(lambda: operator.model().get("phase") == "fetching", "fetching")
        assert 0 == agent.command("install", str(brought)).returncode
        for name in ("tiny", "second", "third"):
            wait_until(lambda name=name: operator.model(name).get("phase") == "confirmed", name)


def test_from_a_registry_to_an_answer(tmp_path, operator, broker, keys, registry):
    """A whole install from `oci://`, with a broken source before it."""
    bundle = heavy_bundle(tmp_path, keys)
    reference = f"oci://{registry.host}/models/tiny"
    client = HttpClient(HttpSettings(proxy=""))
    push(
        Registry(client, parse_reference(reference)),
        parse_reference(reference),
        open_bundle(bundle),
    )
    client.close()
    model = model_of(bundle, "http://127.0.0.1:1/b", f"{reference}:1.0.0")
    with running(AgentProcess(tmp_path / "device", keys, broker.port, probation=QUICK)):
        operator.desire(model)
        report = operator.wait_phase("confirmed")
    assert model.digest == report["active"]["digest"]


def test_what_cannot_run_here_is_rejected_with_its_reason(tmp_path, operator, broker, keys, nginx):
    """The reason of the preflight reaches the report, and a class of agent.toml mends it."""
    from edgepack.bundle import Part, media_types, sign_bundle, write_bundle
    from edgepack.bundle.contract import DeviceRequirements

    plain = open_bundle(heavy_bundle(tmp_path, keys))
    demands = DeviceRequirements(device_classes=("press",))
    path = nginx.www / "demanding.edgepack"
    parts_of = [
        Part(path=layer.path, media_type=layer.media_type, data=plain.read(layer.path))
        for layer in plain.manifest.layers
        if layer.media_type in (media_types.WEIGHTS, media_types.DATASET)
    ]
    write_bundle(path, replace(plain.contract, device=demands), parts_of)
    sign_bundle(path, PrivateKey.load(keys.release_key), sequence=1)
    model = model_of(path, f"{nginx.url}/{path.name}")
    device = tmp_path / "device"
    with running(AgentProcess(device, keys, broker.port, probation=QUICK)) as agent:
        operator.desire(model)
        report = operator.wait_phase("rejected")
        assert "device_class" == report["reason"]
        assert nginx.sent_bytes() < 60_000
        agent.stop()
    text = (device / "agent.toml").read_text()
    (device / "agent.toml").write_text('device_classes = ["press"]\n' + text)
    with running(agent):
        operator.desire(model)
        operator.wait_phase("confirmed")


def test_an_idle_agent_speaks_no_http():
    """What installs is loaded without what speaks HTTP or to registries."""
    code = (
        "import sys, edgepack.agent.install.installing\n"
        "print([name for name in sys.modules if name.startswith(('edgepack.wire.http',\n"
        "    'edgepack.wire.oci', 'edgepack.agent.install.sources.http', 'h11'))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "[]" == done.stdout.strip()
