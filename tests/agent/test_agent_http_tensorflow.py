"""TensorFlow Serving's REST interface and Prometheus' metrics."""

import base64
import re

import numpy as np
import pytest
from support.http_here import http_here
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.agent.serve.predict_rows import columns_of, inputs_of, nested, predictions_of
from edgepack.bundle.contract import Contract, Datatype, Nonfinite, Task, TensorSpec
from edgepack.monitor import DriftResult
from edgepack.runtime import EngineError, InputError
from edgepack.wire.errors import WireError
from edgepack.wire.tensorflow_serving import parse_predict

X = np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32)
PREDICT = "/v1/models/tiny:predict"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with http_here() as server:
        server.put("tiny", write_tiny_bundle(tmp_path_factory.mktemp("bundle")))
        yield server


EXPECTED = tiny_model().predict(X)
ROWS = [
    {"label": label, "probabilities": pytest.approx(row, rel=1e-5)}
    for label, row in zip(
        EXPECTED["label"].tolist(), EXPECTED["probabilities"].tolist(), strict=True
    )
]


@pytest.mark.parametrize(
    "instances",
    [
        X.tolist(),
        [{"x": row} for row in X.tolist()],
        [dict(zip(FEATURES, row, strict=True)) for row in X.tolist()],
    ],
    ids=["values", "inputs", "features"],
)
@pytest.mark.parametrize("path", [PREDICT, "/v1/models/tiny/versions/1.0.0:predict"])
def test_rows_are_answered_by_rows(here, instances, path):
    """A row is the values, an object by input, or an object by feature."""
    status, answer, _ = here.ask("POST", path, {"instances": instances})
    assert (200, {"predictions": ROWS}) == (status, answer)


@pytest.mark.parametrize("inputs", [X.tolist(), {"x": X.tolist()}], ids=["values", "named"])
def test_columns_are_answered_by_columns(here, inputs):
    """`inputs` gives `outputs`."""
    asked = {"inputs": inputs, "signature_name": "serving_default"}
    status, answer, _ = here.ask("POST", PREDICT, asked)
    assert 200 == status
    assert EXPECTED["label"].tolist() == answer["outputs"]["label"]
    np.testing.assert_allclose(EXPECTED["probabilities"], answer["outputs"]["probabilities"], 1e-5)


def test_what_curl_sends_is_taken(here):
    """Curl's -d calls JSON a form; the examples of TensorFlow Serving rely on it."""
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, answer, _ = here.ask("POST", PREDICT, {"instances": X.tolist()}, **form)
    assert (200, 2) == (status, len(answer["predictions"]))


def test_status_and_metadata_have_their_form(here):
    """Clients find state, signature, types and sizes where they look for them."""
    status, answer, _ = here.ask("GET", "/v1/models/tiny")
    (version,) = answer["model_version_status"]
    assert (200, "1.0.0", "AVAILABLE") == (status, version["version"], version["state"])
    _, answer, _ = here.ask("GET", "/v1/models/tiny/versions/1.0.0/metadata")
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert "DT_FLOAT" == signature["inputs"]["x"]["dtype"]
    assert ["-1", "4"] == [d["size"] for d in signature["inputs"]["x"]["tensor_shape"]["dim"]]
    assert {"label", "probabilities"} == set(signature["outputs"])
    assert 404 == here.ask("GET", "/v1/models/other")[0]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "either instances or inputs"),
        ({"instances": [], "inputs": []}, "either instances or inputs"),
        ({"instances": []}, "a list of at least one"),
        ({"instances": {"x": 1}}, "a list of at least one"),
        ({"instances": [{"x": [1]}, [1]]}, "all be objects with the same names"),
        ({"instances": [{"x": [1]}, {"y": [1]}]}, "all be objects with the same names"),
        ({"instances": [[1]], "signature_name": "other"}, "signature_name must be"),
        ({"instances": [[1]], "more": 1}, "got 'more' as well"),
        ({"instances": [[1, 2, 3]]}, r"shape must be \[-1, 4\], got \[1, 3\]"),
        ({"instances": [[1, 2, 3, 4], [1, 2]]}, "lists of the same length"),
        ({"instances": [[1, 2, 3, [4]]]}, "at the same depth"),
        ({"instances": [[1, 2, 3, "4"]]}, "must be FP32 numbers, got str"),
        ({"instances": [{"air_temp": 1}]}, "misses features"),
        ({"inputs": {"y": [[1]]}}, "input 'y' is not in the contract"),
        ({"inputs": {"x": 3}}, "a list with one value for each sample"),
        ({"inputs": {}}, "input 'x' is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here, document, expected):
    """The error object is TensorFlow Serving's, too."""
    status, answer, _ = here.ask("POST", PREDICT, document)
    assert 400 == status
    assert re.search(expected, answer["error"]), answer


def contract(*inputs):
    outputs = (TensorSpec(name="value", datatype=Datatype.FP32, shape=(-1, 1)),)
    return Contract(
        name="m",
        version="1",
        task=Task.REGRESSION,
        inputs=inputs,
        outputs=outputs,
        variants=(),
        golden="g",
    )


TEXT = TensorSpec(name="t", datatype=Datatype.BYTES, shape=(-1, 1))
NUMBER = TensorSpec(name="n", datatype=Datatype.FP32, shape=(-1, 1), nonfinite=Nonfinite.NAN)


def test_columns_of_one_value_take_one_value():
    """A column of shape [-1, 1] takes a number or a text for each row; base64 is decoded."""
    text = base64.b64encode("né".encode()).decode()
    body = b'{"instances": [{"t": {"b64": "%s"}, "n": null}, {"t": "b", "n": 2}]}' % text.encode()
    inputs = inputs_of(parse_predict(body), contract(TEXT, NUMBER))
    assert [["né"], ["b"]] == inputs["t"].tolist()
    np.testing.assert_array_equal(np.array([[np.nan], [2]], np.float32), inputs["n"])


def test_several_inputs_need_names():
    """Values alone do not say which input they are."""
    with pytest.raises(InputError, match="several inputs needs them by name: t, n"):
        inputs_of(parse_predict(b'{"instances": [1]}'), contract(TEXT, NUMBER))


@pytest.mark.parametrize("text", ["!", "/w=="])
def test_base64_that_is_none_is_refused(text):
    """Neither other characters nor other bytes than UTF-8 become a text."""
    with pytest.raises(WireError, match="b64 must be base64 of UTF-8 text"):
        parse_predict(b'{"instances": [{"b64": "%s"}]}' % text.encode())


def test_what_is_not_finite_is_null():
    """JSON has no NaN, at any depth."""
    array = np.array([[1, np.nan], [np.inf, 2]], np.float32)
    assert [[1, None], [None, 2]] == nested(array)
    assert [[1, None], [None, 2]] == predictions_of({"value": array})
    assert [[1, None], [None, 2]] == columns_of({"value": array})


SAMPLE = re.compile(r'[a-z][a-z0-9_]*(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.eEInfNa]+')


def samples(here):
    status, text, headers = here.ask("GET", "/metrics")
    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (status, headers["content-type"])
    lines = text.decode().splitlines()
    assert [] == [line for line in lines if line[0] != "#" and not SAMPLE.fullmatch(line)]
    return dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")


def test_metrics_count_what_happened(tmp_path):
    """Answers, refusals, failures, latency, drift and traffic are there, with their labels."""
    with http_here() as here:
        served = here.put("tiny", write_tiny_bundle(tmp_path))
        for _ in range(3):
            assert 200 == here.ask("POST", PREDICT, {"instances": X.tolist()})[0]
        assert 400 == here.ask("POST", PREDICT, {"instances": [[1]]})[0]
        here.call(lambda: served.failed(EngineError("broken")))
        served.drift = DriftResult(
            rows=200, scores={"a": 0.5}, threshold=0.2, drifted=("a",), alarm=True, psi={}
        )
        found = samples(here)
        labels = '{model="tiny",version="1.0.0"}'
        assert "3" == found["edgepack_model_requests_total" + labels]
        assert "1" == found["edgepack_model_refused_total" + labels]
        assert "1" == found["edgepack_model_failures_total" + labels]
        assert "3" == found["edgepack_model_latency_seconds_count" + labels]
        most = '{model="tiny",version="1.0.0",le="+Inf"}'
        assert "3" == found["edgepack_model_latency_seconds_bucket" + most]
        assert "0.5" == found["edgepack_model_drift_score" + labels]
        assert "1" == found["edgepack_model_drift_alarm" + labels]
        assert "3" == found['edgepack_http_responses_total{status="200"}']
        assert "1" == found['edgepack_http_responses_total{status="400"}']
        assert int(found["edgepack_http_connections"]) >= 1
        assert "1" == found["edgepack_ready"]
