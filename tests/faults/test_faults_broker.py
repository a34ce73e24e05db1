"""A broker that is away, flaps, loses or repeats what it was given, and keeps rubbish."""

import itertools
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from support import brokers
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.cutting_proxy import PUBACK, CuttingProxy
from support.servers import free_port
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.bundle import open_bundle
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.topics import CHUNK_BYTES, DEFAULT_PREFIX, blob_topic, root_topic

pytestmark = pytest.mark.timeout(300)

ROW = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))
X = np.array([list(ROW.values())], np.float32)
PHASES = "fetching verifying staging testing switching probation confirmed"
# The agent, but that it does not wait longer and longer for a broker that flaps.
_IMPATIENT = """
import sys
from edgepack.agent import link
link.Backoff.__init__.__defaults__ = (0.05, 0.05, lambda: 1.0)
from edgepack.agent.main import main
sys.exit(main())
"""


class ImpatientAgent(AgentProcess):
    """`edgepack-agent run` that reconnects at once."""

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _IMPATIENT, "run", "-v", "--config", str(self.config)],
                stderr=log,
                stdout=log,
            )
        return self


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, keys):
    """Three versions, each with answers of its own."""
    release = PrivateKey.load(keys.release_key)
    folder = tmp_path_factory.mktemp("bundles")
    return [
        write_tiny_bundle(folder, version=f"1.{minor}.0", seed=minor, key=release)
        for minor in range(3)
    ]


@pytest.fixture
def broker(tmp_path):
    """A mosquitto for one test."""
    with brokers.running(brokers.Mosquitto(tmp_path)) as made:
        yield made


@pytest.fixture
def operator(broker, keys):
    made = Operator(broker.port, keys)
    yield made
    made.close()


def confidence_of(minor):
    return float(tiny_model(minor).predict(X)["probabilities"].max())


def phases(operator):
    """The phases that the device told of, repetitions left out."""
    told = [doc["phase"] for doc in operator.documents(operator.topics.event("transition"))]
    return [phase for phase, _ in itertools.groupby(told)]


def test_a_connection_that_is_cut_packet_after_packet(broker, operator, keys, bundles, tmp_path):
    """The first one ends before its first packet, the next before its second, and so on."""
    count = 16

    def cuts(packet):
        return packet.connection <= count and packet.number >= packet.connection

    with CuttingProxy(broker.port, cuts) as proxy:
        agent = ImpatientAgent(tmp_path / "device", keys, proxy.port)
        model = operator.upload(bundles[0])
        operator.desire(model)
        with running(agent):
            report = operator.wait_phase("confirmed", digest=model.digest, timeout_s=120)
            answer = operator.ask("r", ROW)
    assert len(proxy.cut) >= 10
    assert {True, False} == {packet.up for packet in proxy.cut}
    assert model.digest == report["confirmed"]["digest"]
    assert confidence_of(0) == pytest.approx(answer["confidence"], abs=1e-5)
    wait_until(lambda: phases(operator)[-1:] == ["confirmed"], "the last event")
    assert PHASES == " ".join(dict.fromkeys(phases(operator)))  # none is lost
    assert "Traceback" not in agent.text()


def test_a_broker_that_goes_before_it_acknowledges(broker, operator, keys, bundles, tmp_path):
    """It has the report, the device cannot know: it says it again, and nothing is lost."""
    left = [6]

    def cuts(packet):
        if packet.up or packet.kind != PUBACK or not left[0]:
            return False
        left[0] -= 1
        return True

    with CuttingProxy(broker.port, cuts) as proxy:
        agent = ImpatientAgent(tmp_path / "device", keys, proxy.port)
        model = operator.upload(bundles[0])
        operator.desire(model)
        with running(agent):
            operator.wait_phase("confirmed", digest=model.digest, timeout_s=120)
            wait_until(lambda: phases(operator)[-1:] == ["confirmed"], "the last event")
    assert 6 == len(proxy.cut)
    assert PHASES == " ".join(dict.fromkeys(phases(operator)))


def test_a_broker_that_is_away_when_the_device_starts(broker, operator, keys, bundles, tmp_path):
    """The device installs from a file and waits; what it reported meanwhile arrives later."""
    port = free_port()
    agent = ImpatientAgent(tmp_path / "device", keys, port)
    with running(agent):
        wait_until(lambda: "broker.lost" in agent.text(), "no broker")
        done = agent.command("install", str(bundles[0]), "--json")
        assert 0 == done.returncode, done.stderr
        with CuttingProxy(broker.port, lambda _: False, port=port):
            operator.wait_phase("confirmed")
            wait_until(lambda: phases(operator)[-1:] == ["confirmed"], "the last event")
    first = operator.documents(operator.topics.event("transition"))[0]
    assert ("fetching", 1) == (first["phase"], first["is_historical"])


def test_states_that_come_twice_late_and_in_the_wrong_order(
    broker, operator, keys, bundles, tmp_path
):
    """Each version is installed once; the newest generation stands."""
    first, second = (operator.upload(path) for path in bundles[:2])
    with running(ImpatientAgent(tmp_path / "device", keys, broker.port)):
        old = operator.desire(first, generation=2)
        operator.wait_phase("confirmed", digest=first.digest)
        new = operator.desire(second, generation=4)
        for envelope in (new, old, new, old):
            operator.publish(operator.topics.desired, envelope, retain=True)
        operator.wait_phase("confirmed", digest=second.digest)
        operator.desire(first, generation=3)
        wait_until(
            lambda: "generation must be above 4, got 3" in operator.reported().get("refused", ""),
            "the late one is refused",
        )
        operator.publish(operator.topics.desired, new, retain=True)
        answer = operator.ask("r", ROW)
        expected = 2 * PHASES.split()
        wait_until(lambda: expected == phases(operator), "all events, once each")
    assert confidence_of(1) == pytest.approx(answer["confidence"], abs=1e-5)


def test_a_broker_full_of_rubbish(broker, operator, keys, bundles, tmp_path):
    """Poisoned retained messages on every topic that a device reads: it lives, and says so."""
    topics, rubbish = operator.topics, [b"\xff\x00", b"[" * 5000, b"{}", b'{"x": NaN}', b"x" * 9000]
    model = operator.upload(bundles[0])
    bundle = open_bundle(bundles[0])
    weights = max(bundle.blobs(), key=lambda blob: blob.size_bytes)
    poisoned = blob_topic(DEFAULT_PREFIX, weights.digest, 0)
    for payload in rubbish:
        for topic in (topics.infer("tiny"), topics.truth("tiny"), f"{topics.base}/in/cmd/install"):
            operator.publish(topic, payload, retain=True)
        operator.publish(root_topic(DEFAULT_PREFIX, 2), payload, retain=True)
        operator.publish(topics.desired, payload, retain=True)
    operator.publish(poisoned, b"p" * min(CHUNK_BYTES, weights.size_bytes), retain=True)
    agent = ImpatientAgent(tmp_path / "device", keys, broker.port)
    with running(agent):
        wait_until(lambda: "desired state" in operator.reported().get("refused", ""), "refused")
        for payload in rubbish:
            operator.publish(topics.desired, payload)
            operator.publish(topics.infer("tiny"), payload)
        operator.desire(model)
        report = operator.wait_phase("rejected", digest=model.digest)
        assert "bundle_invalid" == report["reason"]
        operator.upload(bundles[0])  # the right chunk again
        operator.desire(model)
        operator.wait_phase("confirmed", digest=model.digest)
        answer = operator.ask("r", ROW)
    assert confidence_of(0) == pytest.approx(answer["confidence"], abs=1e-5)
    assert "Traceback" not in agent.text()


def test_three_installs_at_once(broker, operator, keys, bundles, tmp_path):
    """Two by hand and one desired: one after the other, and what is told is what answers."""
    third = operator.upload(bundles[2])
    agent = ImpatientAgent(tmp_path / "device", keys, broker.port)
    done = []
    with running(agent):
        wait_until(lambda: operator.documents(operator.topics.info), "online")
        threads = [
            threading.Thread(
                target=lambda path=path: done.append(agent.command("install", str(path), "--json"))
            )
            for path in bundles[:2]
        ]
        for thread in threads:
            thread.start()
        operator.desire(third)
        for thread in threads:
            thread.join()
        assert [0, 0] == [each.returncode for each in done], [each.stderr for each in done]
        report = operator.wait_phase("confirmed", timeout_s=60)
        for each in bundles:  # whichever was last
            if open_bundle(each).digest == report["active"]["digest"]:
                minor = bundles.index(each)
        answer = operator.ask("r", ROW)
        status = json.loads(agent.command("status", "--json").stdout)
    assert f"1.{minor}.0" == answer["model_version"] == status["models"][0]["active"]["version"]
    assert confidence_of(minor) == pytest.approx(answer["confidence"], abs=1e-5)
    assert "Traceback" not in agent.text()
