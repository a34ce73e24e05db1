"""The agent on 64-bit and 32-bit ARM: the whole way from `edgepack deploy` to answers and reports.

Emulated, so nothing here says how fast anything is. Run by `make test-arm`.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from sklearn.linear_model import LogisticRegression
from support import brokers
from support.agent_process import Operator, running, wait_until
from support.arm_device import PLACE, ArmDevice, arm_root
from support.repository import REPOSITORY

from edgepack.bundle import open_bundle
from edgepack.runtime.golden import parse_golden
from edgepack.trust import keygen

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1800)]

DEADLINE_S = 900.0
ASKED = 24
CLASSES = ("ok", "worn", "broken")
MACHINES = {"arm64": {"aarch64"}, "armhf": {"armv7l", "armv8l"}}
ENGINES = {"arm64": {"onnxruntime", "litert"}, "armhf": {"tflite-runtime"}}
# Every variant on its golden samples in the root: the labels, or why there are none.
EVERY_VARIANT = """
import json, sys
from edgepack.bundle import open_bundle
from edgepack.runtime import EngineMissingError, load
from edgepack.runtime.golden import parse_golden
bundle = open_bundle(sys.argv[1])
golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
answers = {}
for variant in bundle.contract.variants:
    try:
        with load(bundle, variant=variant.name) as model:
            answers[variant.name] = [str(v) for v in model.predict(golden.inputs)["label"]]
    except EngineMissingError:
        answers[variant.name] = None
print(json.dumps(answers))
"""


def edgepack(*arguments: str | Path) -> str:
    """Run the workstation's command; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepack.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("arm") / "keys")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--outdir", folder, REPOSITORY]
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, keys):
    """A logistic regression of 4 features, as ONNX and TFLite."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    y = np.array(CLASSES)[np.argmax(x @ rng.normal(size=(4, 3)), axis=1)]
    joblib.dump(LogisticRegression().fit(x, y), folder / "tiny.joblib")
    np.savez(folder / "tiny.npz", x=x, label=y)
    return convert(folder / "tiny.joblib", folder / "tiny.npz", "tiny", keys, "fp32")


@pytest.fixture(scope="module")
def keywords(tmp_path_factory, keys, shared_data):
    """The keyword spotter of MLPerf Tiny, as ONNX and TFLite in fp32 and int8."""
    pytest.importorskip("tensorflow", reason="reads the SavedModel (make setup-heavy)")
    folder = tmp_path_factory.mktemp("kws")
    with np.load(shared_data / "mlperf_tiny" / "kws01.npz") as packed:
        quantized = packed["mfcc_int8"].astype(np.float32)
        x = ((quantized - packed["zero_point"]) * packed["scale"]).astype(np.float32)
        np.savez(folder / "kws.npz", input_1=x, label=packed["label"].astype(np.int64))
    saved = shared_data / "mlperf_tiny" / "kws_saved_model"
    return convert(saved, folder / "kws.npz", "kws", keys, "fp32", "int8")


def convert(model, data, name, keys, *precision):
    given = ("--data", data, "--label", "label", "--name", name, "--precision", *precision)
    edgepack("convert", model, *given, "--keys", keys.root_json.parent, "-o", data.parent)
    (made,) = data.parent.glob("*.edgepack")
    return made


@pytest.fixture(scope="module", params=["arm64", "armhf"])
def arch(request):
    arm_root(request.param)
    return request.param


@pytest.fixture(scope="module")
def broker(arch, tmp_path_factory):
    """A mosquitto outside, for one device."""
    with brokers.running(brokers.Mosquitto(tmp_path_factory.mktemp(f"broker-{arch}"))) as made:
        yield made


@pytest.fixture(scope="module")
def operator(broker, keys):
    made = Operator(broker.port, keys, protocol=mqtt.MQTTv5)
    yield made
    made.close()


@pytest.fixture(scope="module")
def device(arch, tmp_path_factory, broker, operator, keys, wheel):
    """One agent for all tests of an architecture; what they install stays."""
    with running(ArmDevice(tmp_path_factory.mktemp(arch), arch, wheel, keys, broker.port)) as made:
        yield made


def waited(condition, what):
    return wait_until(condition, what, DEADLINE_S)


def test_it_says_what_it_is(device, operator, arch):
    """Processor, engines and memory of the root, not of the machine outside."""
    waited(lambda: operator.documents(operator.topics.info), "info")
    info = operator.documents(operator.topics.info)[-1]
    assert info["machine"] in MACHINES[arch]
    assert info["python"].startswith("3.11.")
    assert ENGINES[arch] == set(info["engines"])
    assert info["memory_bytes"] > 1e8


@pytest.mark.parametrize("made", ["tiny", "keywords"])
def test_deployed_tested_confirmed_and_asked(request, device, operator, broker, keys, made):
    """Fetched over MQTT, self-tested there, confirmed; answers are the original model's."""
    path = request.getfixturevalue(made)
    bundle = open_bundle(path)
    name = bundle.contract.name
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    where = ("--broker", broker.url, "--keys", keys.root_json.parent)
    edgepack(
        *("deploy", path, "--device", "d1", *where, "--wait", "--timeout", str(int(DEADLINE_S)))
    )
    report = operator.model(name)
    assert ("confirmed", bundle.digest) == (report["phase"], report["confirmed"]["digest"])
    assert report["variant"] in {variant.name for variant in bundle.contract.variants}
    assert report["self_test"]["p50_ms"] > 0

    count = min(golden.rows, ASKED)
    expected = [str(label) for label in golden.outputs["label"][:count]]
    answers = [ask(operator, bundle, golden, row) for row in range(count)]
    labels = [answer["label"] for answer in answers]
    assert {bundle.contract.version} == {answer["model_version"] for answer in answers}
    if "int8" in report["variant"]:  # what its processor rounds otherwise may change a close call
        assert sum(a == b for a, b in zip(expected, labels, strict=True)) >= count - 2
    else:
        assert expected == labels

    def counted():
        found = operator.documents(operator.topics.metrics(name))
        return sum(d.get("requests", 0) for d in found) >= count and found

    metrics = waited(counted, "metrics")
    assert 0 == sum(document["errors"] for document in metrics)
    assert any(document.get("latency_p50_ms", 0) > 0 for document in metrics)
    events = operator.documents(operator.topics.event("transition"))
    phases = [e["phase"] for e in events if e["model"] == name]
    expected_phases = "fetching verifying staging testing switching probation confirmed"
    assert expected_phases == " ".join(phases)


def ask(operator, bundle, golden, row):
    features = {}
    for spec in bundle.contract.inputs:
        sample = golden.inputs[spec.name][row]
        if spec.feature_names:
            features |= dict(zip(spec.feature_names, sample.tolist(), strict=True))
        else:
            features[spec.name] = sample.tolist()
    request_id = f"{bundle.contract.name}-{row}"
    topic = operator.topics.infer(bundle.contract.name)
    operator.publish(topic, json.dumps({**features, "request_id": request_id}).encode())
    return operator.wait_answer(request_id, model=bundle.contract.name, timeout_s=DEADLINE_S)


@pytest.mark.parametrize("made", ["tiny", "keywords"])
def test_every_variant_that_has_an_engine_here_answers_right(request, device, arch, made):
    """Not only the variant that the self-test chose."""
    path = request.getfixturevalue(made)
    bundle = open_bundle(path)
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    (device.folder / path.name).write_bytes(path.read_bytes())
    done = device.python("-", f"{PLACE}/{path.name}", text=EVERY_VARIANT)
    assert 0 == done.returncode, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for variant in bundle.contract.variants:
        labels = answers[variant.name]
        if arch == "armhf" and variant.engine.engine == "onnxruntime":
            assert labels is None
            continue
        agreement = np.mean(np.array(labels) == golden.outputs["label"].astype(str))
        assert agreement >= (0.95 if "int8" in variant.name else 1.0), (variant.name, agreement)


def test_after_a_kill_it_serves_what_it_served(device, operator, tiny):
    """State, its times and its files are read back as they were written."""
    bundle = open_bundle(tiny)
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    device.stop(signal.SIGKILL)
    operator.messages.clear()
    device.start()
    waited(lambda: operator.model(bundle.contract.name).get("phase"), "reported again")
    assert "confirmed" == operator.model(bundle.contract.name)["phase"]
    assert golden.outputs["label"][0] == ask(operator, bundle, golden, 0)["label"]
    status = json.loads(device.command("status", "--json").stdout)
    assert status["running"]
    assert status["connected"]


def test_it_stops_tidily(device):
    """SIGTERM ends it with exit code 0, and its log has no traceback."""
    assert 0 == device.stop()
    assert "Traceback" not in device.text()
