"""The client that figures over HTTP are measured with, and the models that it asks."""

import numpy as np
import pytest
from support.http_here import http_here
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.bench.errors import BenchError
from edgepack.bench.http_caller import HttpCaller, tensor_request, throughput, wait_for
from edgepack.bench.serve_models import IMAGE, IMAGE_SHAPE, write_image
from edgepack.runtime import load
from edgepack.trust import keygen
from edgepack.wire.open_inference import parse_answer

X = np.ones((1, 4), np.float32)
PATH = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with http_here() as server:
        server.put("tiny", write_tiny_bundle(tmp_path_factory.mktemp("bundle")))
        yield server


def test_it_asks_in_both_forms(here):
    """JSON and binary requests are answered with the model's values."""
    expected = tiny_model().predict(X)["probabilities"].ravel()
    plain = tensor_request(PATH, "x", X.shape, X.ravel().tolist(), None)
    binary = tensor_request(PATH, "x", X.shape, (), X.tobytes())
    with HttpCaller(here.port) as caller:
        answer = parse_answer(caller.ask(plain))
        np.testing.assert_allclose(expected, answer.outputs[1].data, rtol=1e-5)
        assert expected.astype("<f4").tobytes()[:4] in caller.ask(binary)
        assert caller.time_s(plain) > 0


def test_a_refusal_is_no_figure(here):
    """A latency of errors must not be taken for one of answers."""
    wrong = tensor_request(PATH, "x", (1, 3), [1, 2, 3], None)
    with HttpCaller(here.port) as caller, pytest.raises(BenchError, match="must answer 200"):
        caller.ask(wrong)
    with pytest.raises(BenchError, match="must answer 200"):
        throughput(here.port, wrong, clients=2, seconds=5.0)


def test_throughput_counts_answers(here):
    """Several clients ask again as soon as they are answered."""
    served = here.registry.get("tiny")
    before = served.requests
    binary = tensor_request(PATH, "x", X.shape, (), X.tobytes())
    rate = throughput(here.port, binary, clients=4, seconds=0.2)
    assert 0 < rate * 0.2 <= served.requests - before + 4


def test_it_waits_until_a_server_is_ready(here):
    """And gives up when the process has ended."""
    wait_for(here.port, "/v2/health/ready", lambda: True)
    with pytest.raises(BenchError, match="must be ready at /nothing"):
        wait_for(here.port, "/nothing", iter([True, False]).__next__)


def test_the_image_model_gives_means(tmp_path):
    """Its request is 602 KB of binary data."""
    keys = keygen(tmp_path / "keys")
    with load(write_image(tmp_path, keys.release_key)) as model:
        assert IMAGE == model.contract.name
        image = np.full(IMAGE_SHAPE, 0.5, np.float32)
        assert 602_112 == image.nbytes
        np.testing.assert_allclose([[0.5] * 3], model.predict({"x": image})["value"], rtol=1e-5)
