"""A device whose uplink is down: sensors and actions work on a local broker, reports wait."""

import json
import socket
import threading

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.brokers import Mosquitto
from support.cutting_proxy import CuttingProxy
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.trust import PrivateKey, keygen

CONFIG = """
[predictions]
interval_s = 0

[http]
socket = "http.sock"

[log]
predictions = true
inputs = true
redact = ["torque"]

[[input]]
model = "tiny"
name = "press"
topic = "press/+"
broker = {{ url = "mqtt://127.0.0.1:{port}" }}

[[action]]
name = "stop"
model = "tiny"
when = {{ labels = ["{bad}"] }}
in_a_row = 2
topic = "plant/stop"
payload = {{ stop = true, why = "${{label}}", press = "${{source}}" }}
qos = 1
retain = true
broker = {{ url = "mqtt://127.0.0.1:{port}" }}
reset = {{ payload = "go" }}
"""


class Machine:
    """A client of the local broker."""

    def __init__(self, port):
        self.messages = []
        subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, m: self.messages.append((m.topic, m.payload))
        self._client.on_connect = lambda *_: self._client.subscribe("plant/#", 1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(30)

    def say(self, topic, document):
        self._client.publish(topic, json.dumps(document).encode(), qos=1).wait_for_publish(30)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    broker = Mosquitto(folder)
    broker.start()
    yield broker
    broker.stop()


def metrics_of(door):
    """What Prometheus would read."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(door))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as answer:
            return answer.read().decode()


def rows():
    """Two rows of features by class of the tiny model: what it answers for them."""
    x = np.random.default_rng(5).normal(size=(64, 4)).astype(np.float32).round(3)
    labels = tiny_model().predict(x)["label"]
    bad = labels[0]
    other = next(i for i, label in enumerate(labels) if label != bad)
    named = [
        {name: round(float(value), 3) for name, value in zip(FEATURES, x[index], strict=True)}
        for index in (0, other)
    ]
    return str(bad), str(labels[other]), *named


def test_a_machine_is_stopped_while_the_uplink_is_down(local, mosquitto, prefix, tmp_path):
    """And what was predicted meanwhile is told later, as history."""
    keys = keygen(tmp_path / "keys")
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    bad, good, bad_row, good_row = rows()
    config = CONFIG.format(port=local.port, bad=bad)
    is_down = threading.Event()
    is_down.set()
    uplink = CuttingProxy(mosquitto.port, lambda _: is_down.is_set())
    top = f'prefix = "{prefix}"\n'
    agent = AgentProcess(tmp_path / "device", keys, uplink.port, top=top, feed=config)
    assert 0 == agent.command("install", str(bundle)).returncode
    machine = Machine(local.port)
    operator = Operator(mosquitto.port, keys, prefix=prefix)
    with uplink, running(agent):
        # the agent has subscribed when a message makes a prediction
        log = agent.folder / "state/predictions.jsonl"
        wait_until(
            lambda: f"broker.connected url=mqtt://127.0.0.1:{local.port} " in agent.text(),
            "local broker",
        )
        for row in (good_row, bad_row, bad_row, bad_row, good_row):
            machine.say("press/7", row)
        wait_until(lambda: len(machine.messages) >= 2, "stop and go")
        stop = {"press": "7", "stop": True, "why": bad}
        assert [("plant/stop", stop), ("plant/stop", "go")] == [
            (topic, payload.decode() if payload == b"go" else json.loads(payload))
            for topic, payload in machine.messages
        ]
        labels = '{model="tiny",version="1.0.0"}'
        expected = {
            f"edgepack_input_messages_total{labels} 5",
            f"edgepack_actions_total{labels} 2",
        }
        door = agent.folder / "http.sock"
        wait_until(lambda: expected <= set(metrics_of(door).splitlines()), "figures")
        is_down.clear()
        topic = operator.topics.prediction("tiny")
        wait_until(lambda: len(operator.documents(topic)) >= 3, "history", 120)
        assert [(good, "7", 1), (bad, "7", 1), (good, "7", 1)] == [
            (one["label"], one["source"], one["is_historical"]) for one in operator.documents(topic)
        ]
        assert 0 == agent.stop()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [good, bad, bad, bad, good] == [line["label"] for line in lines]
        first = lines[0]
        assert ("redacted", pytest.approx(good_row["wear"])) == (
            first["input.torque"],
            first["input.wear"],
        )
    operator.close()
    machine.close()
