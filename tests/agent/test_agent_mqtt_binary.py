"""Binary tensors over MQTT: the request that comes, and the answer that goes out."""

import asyncio

import numpy as np
import pytest
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.agent.config import DriftConfig
from edgepack.agent.install.slot import Installed
from edgepack.agent.link import Incoming
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.mqtt import RequestServer
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.served import ServedModel
from edgepack.runtime import load
from edgepack.wire.infer import object_size
from edgepack.wire.messages import Release
from edgepack.wire.open_inference import InferRequest, WireTensor, parse_answer, render_infer
from edgepack.wire.topics import DeviceTopics

TOPICS = DeviceTopics("edgepack/v1", "d1")
X = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)


class Link:
    """Keeps what is published."""

    def __init__(self):
        self.sent = []

    async def publish(self, topic, payload, *, correlation=None):
        self.sent.append((topic, payload, correlation))


@pytest.mark.parametrize("response", [None, f"{TOPICS.base}/out/reply/me"])
def test_a_binary_request_is_answered(tmp_path, response):
    """In binary form on a response topic; on `out/prediction`, which others read, in JSON."""

    async def main():
        registry = Registry(DriftConfig())
        release = Release(digest="sha256:" + "a" * 64, version="1.0.0", sequence=1)
        installed = Installed(release=release, variant="onnx-fp32")
        registry._served["tiny"] = ServedModel(installed, load(write_tiny_bundle(tmp_path)))
        server = RequestServer(
            Inference(registry, pending=4, drifted=lambda *_: None), TOPICS, pending=4
        )
        server.link = link = Link()
        tensor = WireTensor("x", "FP32", X.shape, memoryview(X.tobytes()))
        parts, _ = render_infer(InferRequest("a7", (tensor,), binary=True))
        server.infer(Incoming(TOPICS.infer("tiny"), b"".join(parts), False, response, b"c"))
        await server.drain(30)
        registry.close()
        return link.sent

    ((topic, payload, correlation),) = asyncio.run(main())
    is_binary = response is not None
    expected = (response, b"c") if is_binary else (TOPICS.prediction("tiny"), None)
    assert expected == (topic, correlation)
    size = object_size(payload)
    assert (size < len(payload)) == is_binary
    answer = parse_answer(payload, size if is_binary else None)
    found = {output.name: output for output in answer.outputs}["probabilities"]
    values = np.frombuffer(found.data, np.float32) if is_binary else np.array(found.data)
    expected = tiny_model().predict(X)["probabilities"]
    np.testing.assert_allclose(expected.ravel(), values, rtol=1e-5)
    assert "a7" == answer.request_id
