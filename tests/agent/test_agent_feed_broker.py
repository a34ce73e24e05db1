"""Configured inputs over a real broker: from a sensor's message to a prediction."""

import json

import numpy as np
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.trust import PrivateKey, keygen

ZIGBEE = """
[log]
predictions = true
flush_s = 0.1

[predictions]
interval_s = 3600

[[input]]
model = "tiny"
topic = "zigbee2mqtt/+"
request_id = "n"

[input.features]
air_temp = { path = "temperature", offset = 273.15 }
torque = { path = "update.torque[0]", missing = "value", value = 0 }
speed = { path = "linkquality", scale = 0.01 }
wear = { path = "contact", map = { true = 1, false = 0 } }
"""


def z2m(number, *, temperature=21.5, quality=102, contact=True):
    """A message as zigbee2mqtt writes it."""
    return {
        "battery": 97,
        "contact": contact,
        "linkquality": quality,
        "temperature": temperature,
        "update": {"installed_version": 16777241, "state": "idle"},
        "n": number,
    }


def another(label):
    """A message that the model answers otherwise, and how."""
    for quality in range(-50_000, 50_000, 100):
        message = z2m(3, quality=quality)
        x = np.array([[294.65, 0, quality / 100, 1]], np.float32)
        found = tiny_model().predict(x)["label"][0]
        if found != label:
            return message, found
    raise AssertionError("the model knows one answer only")


def request_ids(agent):
    """Of the predictions that the device's log holds."""
    log = agent.folder / "state/predictions.jsonl"
    return [json.loads(line)["request_id"] for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


def test_a_sensors_messages_become_predictions(mosquitto, prefix, keys, tmp_path):
    """Wildcards, paths, units, categories and defaults; every prediction says whose it is."""
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    operator = Operator(mosquitto.port, keys, prefix=prefix)
    top = f'prefix = "{prefix}"\n'
    inputs = ZIGBEE.replace("zigbee2mqtt", f"{prefix}-z2m")
    agent = AgentProcess(tmp_path / "device", keys, mosquitto.port, top=top, inputs=inputs)
    with running(agent):
        operator.desire(operator.upload(bundle))
        operator.wait_phase("probation")
        operator.publish(f"{prefix}-z2m/press-7", json.dumps(z2m(1)).encode())
        operator.publish(f"{prefix}-z2m/press-8", b"not JSON")
        operator.publish(f"{prefix}-z2m/press-8", json.dumps(z2m(2, contact=False)).encode())
        topic = operator.topics.prediction("tiny")
        wait_until(lambda: len(operator.documents(topic)) >= 2, "two predictions")
        found = operator.documents(topic)
        x = np.array([[294.65, 0, 1.02, 1], [294.65, 0, 1.02, 0]], np.float32)
        assert list(tiny_model().predict(x)["label"]) == [one["label"] for one in found]
        assert [("press-7", "1"), ("press-8", "2")] == [
            (one["source"], one["request_id"]) for one in found
        ]
        wait_until(
            lambda: any(
                (3, 2, 1)
                == (one["input_messages"], one["input_predictions"], one["input_rejected"])
                for one in operator.documents(operator.topics.metrics("tiny"))
            ),
            "figures",
        )
        assert "reason=not_json" in agent.text()
        # a change within the hour is told when the agent stops
        last, label = another(found[0]["label"])
        operator.publish(f"{prefix}-z2m/press-7", json.dumps(last).encode())
        wait_until(lambda: "3" in request_ids(agent), "the last prediction")
        assert 2 == len(operator.documents(topic))
        assert 0 == agent.stop()
        wait_until(lambda: len(operator.documents(topic)) >= 3, "last words")
        told = operator.documents(topic)[2]
        assert (label, "press-7", "3") == (told["label"], told["source"], told["request_id"])
    operator.close()


def test_an_input_that_does_not_fit_is_said_as_soon_as_the_model_is_there(
    mosquitto, prefix, keys, tmp_path
):
    """In one line, in the report; the agent goes on, and answers requests."""
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    operator = Operator(mosquitto.port, keys, prefix=prefix)
    inputs = '[[input]]\nmodel = "tiny"\ntopic = "s/x"\n[input.features]\nair_tmp = {}\n'
    top = f'prefix = "{prefix}"\n'
    agent = AgentProcess(tmp_path / "device", keys, mosquitto.port, top=top, inputs=inputs)
    with running(agent):
        operator.desire(operator.upload(bundle))
        notice = wait_until(
            lambda: operator.reported().get("notices", {}).get("input"), "the notice"
        )
        assert (
            "input 'tiny' does not fit the model: unknown features 'air_tmp', the model has "
            "'air_temp', 'torque', 'speed', 'wear'"
        ) == notice
        answer = operator.ask("r1", dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True)))
        assert "label" in answer
    operator.close()
