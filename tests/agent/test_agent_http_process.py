"""HTTP from a real agent process, without any broker."""

import http.client
import json

import numpy as np
import pytest
import tritonclient.http as triton
from support.agent_process import AgentProcess, http_port, running, wait_until
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.trust import PrivateKey, keygen


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_device_without_a_broker_answers_over_http(tmp_path, keys):
    """What was installed from a file answers; after a restart it does so again."""
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    section = '[http]\nlisten = "127.0.0.1:0"\n'
    agent = AgentProcess(tmp_path / "device", keys, None, http=section)
    assert 0 == agent.command("install", str(bundle)).returncode
    x = np.ones((3, 4), np.float32)
    expected = tiny_model().predict(x)["probabilities"]
    with running(agent):
        port = http_port(agent)
        wait_until(lambda: get(port, "/v2/health/ready")[0] == 200, "ready")
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        tensor = triton.InferInput("x", [3, 4], "FP32").set_data_from_numpy(x)
        answer = client.infer("tiny", [tensor])
        np.testing.assert_allclose(expected, answer.as_numpy("probabilities"), 1e-5)
        client.close()
        assert (404, {"error": "model 'no' is not on this device"}) == get(port, "/v2/models/no")
        assert 0 == agent.stop()


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path, keys):
    """Exit code 2 before anything is loaded; commands that need no HTTP go on working."""
    section = '[http]\nlisten = "127.0.0.1:0"\ncert_file = "none.pem"\nkey_file = "none.pem"\n'
    agent = AgentProcess(tmp_path / "device", keys, None, http=section)
    done = agent.command("run")
    assert 2 == done.returncode
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith("edgepack-agent: error: http.cert_file ")
    assert line.endswith("none.pem cannot be used: No such file or directory")
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    assert 0 == agent.command("install", str(bundle)).returncode
