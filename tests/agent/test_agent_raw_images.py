"""A model with preprocessing on a device: it is sent raw images."""

import json

import numpy as np
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.image_bundle import COLOURS, colour_images, write_image_bundle

from edgepack.agent.serve.requests import to_inputs
from edgepack.bundle import open_bundle
from edgepack.runtime.errors import InputError
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.open_inference import InferRequest

SHORT = "[probation]\nrequests = 5\nseconds = 1\n"


def test_a_device_is_sent_images_of_any_size(own_broker, tmp_path):
    """Installed, tested on raw golden samples, and asked with nested lists and with tensors."""
    keys = keygen(tmp_path / "keys")
    bundle = write_image_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    operator = Operator(own_broker.port, keys)
    agent = AgentProcess(tmp_path / "device", keys, own_broker.port, probation=SHORT)
    with running(agent):
        operator.desire(operator.upload(bundle))
        wait_until(lambda: operator.model("colours").get("phase") == "confirmed", "confirmed")
        assert 64 == operator.model("colours")["self_test"]["rows"]
        for row, side in enumerate((4, 8, 12)):
            (image,), (label,) = colour_images(1, side=side, seed=row)
            answer = operator.ask(f"r{row}", {"image": image.tolist()}, model="colours")
            assert label == answer["label"]
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape]}
        request = {"id": "t", "inputs": [{**tensor, "data": image.ravel().tolist()}]}
        operator.publish(operator.topics.infer("colours"), json.dumps(request).encode())
        topic = operator.topics.prediction("colours")
        wait_until(lambda: "t" in [doc.get("id") for doc in operator.documents(topic)], "answer")
        (found,) = [doc for doc in operator.documents(topic) if doc.get("id") == "t"]
        assert [label] == found["outputs"][0]["data"]
        assert label in COLOURS
    operator.close()


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (np.zeros((2, 3, 3)).tolist(), (1, 2, 3, 3)),
        (np.zeros(18).tolist(), None),
        ([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3]]], None),
        (np.zeros((2, 3, 4)).tolist(), None),
        (5, None),
    ],
    ids=["an image", "flat", "ragged", "four channels", "a number"],
)
def test_the_size_of_an_image_is_its_lists(value, shape, tmp_path):
    """Where the contract leaves it free; anything else is refused."""
    contract = open_bundle(write_image_bundle(tmp_path)).contract
    whole = json.loads(json.dumps(value), parse_float=lambda text: int(float(text)))
    request = InferRequest(request_id=None, features={"image": whole}, tensors=None)
    if shape is None:
        with pytest.raises(InputError, match="'image' must have the shape"):
            to_inputs(request, contract)
    else:
        assert shape == to_inputs(request, contract)["image"].shape
