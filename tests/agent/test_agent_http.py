"""Open Inference Protocol over HTTP, asked by `tritonclient`, which is not ours."""

import numpy as np
import pytest
import tritonclient.http as triton
from support.agent_process import wait_until
from support.http_here import http_here
from support.tiny_bundle import tiny_model, write_tiny_bundle
from support.word_bundle import write_word_bundle
from tritonclient.utils import InferenceServerException

from edgepack.wire.infer import Truth

X = np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def here(bundle):
    with http_here() as server:
        server.put("tiny", bundle)
        yield server


@pytest.fixture
def client(here):
    found = triton.InferenceServerClient(f"127.0.0.1:{here.port}")
    yield found
    found.close()


def tensor(array=X, *, binary, name="x", datatype="FP32"):
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=binary)
    return found


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_foreign_client_gets_the_models_answers(client, binary_in, binary_out):
    """JSON or binary, on the way in and on the way out, give the same answer."""
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("probabilities", "label")
    ]
    answer = client.infer("tiny", [tensor(binary=binary_in)], outputs=outputs, request_id="a7")
    expected = tiny_model().predict(X)
    np.testing.assert_allclose(expected["probabilities"], answer.as_numpy("probabilities"), 1e-5)
    labels = [v.decode() if isinstance(v, bytes) else v for v in answer.as_numpy("label")]
    assert expected["label"].tolist() == labels
    assert "a7" == answer.get_response()["id"]
    assert "1.0.0" == answer.get_response()["model_version"]


def test_without_wishes_all_outputs_come_in_binary_form(client):
    """A client that names no outputs asks for all of them in binary form by one parameter."""
    answer = client.infer("tiny", [tensor(binary=True)])
    assert (2, 3) == answer.as_numpy("probabilities").shape
    assert ["label", "probabilities"] == [o["name"] for o in answer.get_response()["outputs"]]


def test_a_foreign_client_reads_health_and_metadata(client):
    """What it asks before it infers has the protocol's form."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1.0.0")
    assert not client.is_model_ready("tiny", "2.0.0")
    assert not client.is_model_ready("other")
    assert "edgepack" == client.get_server_metadata()["name"]
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("tiny")
    assert ("tiny", ["1.0.0"]) == (metadata["name"], metadata["versions"])
    assert [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}] == metadata["inputs"]
    assert "onnxruntime_onnx" == metadata["platform"]
    index = client.get_model_repository_index()
    assert [("tiny", "READY")] == [(model["name"], model["state"]) for model in index]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_a_request_may_be_compressed(client, compression):
    """What a client compresses is taken."""
    answer = client.infer("tiny", [tensor(binary=True)], request_compression_algorithm=compression)
    assert (2, 3) == answer.as_numpy("probabilities").shape


class Mirror:
    """A challenger that only remembers."""

    def __init__(self):
        self.seen = []

    def offer(self, inputs, outputs):
        self.seen.append((inputs, outputs))

    def metrics(self):
        return {"shadow_version": "2.0.0", "shadow_requests": len(self.seen)}

    def stop(self):
        pass


def test_what_follows_a_prediction_follows_over_http(bundle):
    """A challenger sees inputs and outputs, listeners the prediction, and the id joins a truth."""
    with http_here() as here:
        served = here.put("tiny", bundle)
        mirror, heard = Mirror(), []
        here.registry.mirrors["tiny"] = mirror
        here.inference.listeners.append(heard.append)
        client = triton.InferenceServerClient(f"127.0.0.1:{here.port}")
        client.infer("tiny", [tensor(binary=True)], request_id="a7")
        client.close()
        wait_until(lambda: mirror.seen, "the challenger sees it")
        ((inputs, outputs),) = mirror.seen
        np.testing.assert_array_equal(X, inputs["x"])
        assert {"label", "probabilities"} == set(outputs)
        assert [("tiny", "a7", False)] == [(p.model, p.request_id, p.is_told) for p in heard]
        label = str(outputs["label"][0])
        assert here.call(lambda: served.truth(Truth("a7", label, None)))
        metrics = here.ask("GET", "/metrics")[1].decode()
        assert 'edgepack_shadow_requests_total{model="tiny",version="1.0.0"} 1' in metrics
        assert 'edgepack_model_accuracy_ratio{model="tiny",version="1.0.0"} 1.0' in metrics


def test_a_foreign_client_shows_our_errors(client):
    """It finds the protocol's error object where it looks for it."""
    wrong = tensor(np.zeros((2, 5), np.float32), binary=True)
    with pytest.raises(InferenceServerException, match=r"shape must be \[-1, 4\], got \[2, 5\]"):
        client.infer("tiny", [wrong])
    with pytest.raises(InferenceServerException, match="model 'other' is not on this device"):
        client.infer("other", [wrong])


def test_a_category_that_the_model_refuses(here, tmp_path):
    """The caller is told which input it was, and what came; the next one is answered."""
    here.put("words", write_word_bundle(tmp_path))

    def ask(word):
        given = {"name": "word", "datatype": "BYTES", "shape": [1, 1], "data": [word]}
        return here.ask("POST", "/v2/models/words/infer", {"inputs": [given]})[:2]

    expected = "input 'word' must be one of the categories that the model was fitted to, got 'up'"
    assert (400, {"error": expected}) == ask("up")
    assert 200 == ask("left")[0]
