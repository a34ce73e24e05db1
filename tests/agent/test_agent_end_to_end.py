"""A real agent process at a real mosquitto: install, answer, refuse, restart, report."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.brokers import Embedded, Mosquitto
from support.brokers import running as running_broker
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.trust import PrivateKey, keygen
from edgepack.wire.desired import Mode

ROW = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))
SHORT = "[probation]\nrequests = 5\nseconds = 1\n"
X = np.array([list(ROW.values())], np.float32)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def release(keys):
    return PrivateKey.load(keys.release_key)


@pytest.fixture
def kind(request):
    """Which broker; what it does not matter to is tried with one."""
    return getattr(request, "param", "mosquitto")


each_broker = pytest.mark.parametrize("kind", ["embedded", "mosquitto"], indirect=True)


@pytest.fixture
def broker(kind, tmp_path):
    """A broker that this test alone uses, and may restart."""
    with running_broker(Embedded() if kind == "embedded" else Mosquitto(tmp_path)) as made:
        yield made


@pytest.fixture
def operator(broker, keys):
    made = Operator(broker.port, keys)
    yield made
    made.close()


@pytest.fixture
def agent(tmp_path, broker, keys):
    with running(AgentProcess(tmp_path / "device", keys, broker.port, probation=SHORT)) as made:
        yield made


@pytest.fixture
def bundle(tmp_path, release):
    return write_tiny_bundle(tmp_path, key=release)


def expected_label(seed=0):
    return tiny_model(seed).predict(X)["label"][0]


def deploy(operator, path, **options):
    model = operator.upload(path, **options)
    operator.desire(model)
    return model


@each_broker
def test_from_desired_state_to_answer(operator, agent, bundle):
    """A deployed bundle is fetched over MQTT, tested, switched to, answers, and is confirmed."""
    model = deploy(operator, bundle)
    operator.wait_phase("probation", digest=model.digest)
    answer = operator.ask("r1", ROW)
    expected = tiny_model().predict(X)
    assert (expected["label"][0], "1.0.0") == (answer["label"], answer["model_version"])
    assert abs(float(expected["probabilities"].max()) - answer["confidence"]) < 1e-5
    for i in range(4):
        operator.ask(f"more{i}", ROW)
    report = operator.wait_phase("confirmed")
    assert model.digest == report["active"]["digest"] == report["confirmed"]["digest"]
    assert "onnx-fp32" == report["variant"]
    assert report["self_test"]["rows"] == 64
    expected_phases = "fetching verifying staging testing switching probation confirmed"
    transitions = operator.topics.event("transition")
    wait_until(lambda: len(operator.documents(transitions)) >= 7, "seven transitions")
    assert expected_phases == " ".join(doc["phase"] for doc in operator.documents(transitions))
    (event,) = operator.documents(operator.topics.event("self_test"))
    assert "onnx-fp32" == event["variant"]
    assert 1 <= event["threads"] <= len(os.sched_getaffinity(0))  # what was measured here
    assert 0 < event["p50_low_ms"] <= event["p50_ms"] <= event["p50_high_ms"]


@each_broker
def test_it_says_what_it_is(operator, agent):
    """Status and information are retained and complete."""
    wait_until(lambda: operator.documents(operator.topics.info), "info")
    (info,) = operator.documents(operator.topics.info)[-1:]
    assert "d1" == info["device"]
    assert "onnxruntime" in info["engines"]
    assert info["memory_bytes"] > 1e8
    wait_until(
        lambda: (operator.topics.status, b"online") in [m[:2] for m in operator.messages], "online"
    )


def test_metrics_and_accuracy_from_truths(operator, agent, bundle):
    """Truths joined by request id become an accuracy with its interval."""
    deploy(operator, bundle)
    operator.wait_phase("probation")
    label = expected_label()
    for i in range(8):
        operator.ask(f"r{i}", ROW)
        truth = label if i < 6 else "something else"
        message = {"request_id": f"r{i}", "label": truth}
        operator.publish(operator.topics.truth("tiny"), json.dumps(message).encode())

    def judged():
        found = operator.documents(operator.topics.metrics("tiny"))
        return next((doc for doc in found if doc.get("truths") == 8), None)

    metrics = wait_until(judged, "accuracy in the metrics")
    assert (0.75, 8, 0) == (metrics["accuracy"], metrics["requests"], metrics["errors"])
    assert metrics["accuracy_low"] < 0.75 < metrics["accuracy_high"]
    with_latency = [
        d for d in operator.documents(operator.topics.metrics("tiny")) if "latency_p50_ms" in d
    ]
    assert with_latency
    assert all(0 < d["latency_p50_ms"] <= d["latency_p99_ms"] for d in with_latency)
    figures = wait_until(lambda: operator.documents(operator.topics.agent), "the agent's own")[-1]
    assert figures["memory_bytes"] > 2e7
    latest = wait_until(lambda: operator.documents(operator.topics.latest("tiny")), "the latest")
    assert label == latest[-1]["label"]


@each_broker
def test_wrong_requests_get_an_error_and_hurt_nobody(operator, agent, bundle):
    """Errors of callers are answered, and never count against the model."""
    deploy(operator, bundle)
    operator.wait_phase("probation")
    topic = operator.topics.infer("tiny")
    for i in range(10):
        operator.publish(topic, json.dumps({"torque": "high", "request_id": f"bad{i}"}).encode())
    assert "misses features" in operator.wait_answer("bad9")["error"]
    operator.publish(topic, b"\xff not json")
    unknown = json.dumps({"x": 1, "request_id": "u1"}).encode()
    operator.publish(operator.topics.infer("nothing"), unknown)
    assert "not on this device" in operator.wait_answer("u1", model="nothing")["error"]
    assert expected_label() == operator.ask("good", ROW)["label"]
    report = operator.wait_phase("confirmed")
    assert not report.get("reason")


@pytest.mark.parametrize("kind", ["damaged", "stranger", "wrong_answers", "crash"])
def test_a_bad_bundle_is_rejected_and_the_model_goes_on(
    operator, agent, bundle, tmp_path, release, kind
):
    """Whatever is wrong with the new version, the running one answers throughout."""
    first = deploy(operator, bundle)
    operator.wait_phase("confirmed")
    if kind == "damaged":
        bad = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release)
        reason = "bundle_invalid"
    elif kind == "stranger":
        bad = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=PrivateKey.generate())
        reason = "not_trusted"
    elif kind == "wrong_answers":
        bad = write_tiny_bundle(
            tmp_path, version="1.1.0", seed=1, key=release, model=tiny_model(2).onnx()
        )
        reason = "self_test_failed"
    else:
        bad = write_tiny_bundle(tmp_path, version="1.1.0", key=release, model=b"not onnx at all")
        reason = "self_test_failed"
    second = deploy(operator, bad, damage=kind == "damaged")
    report = operator.wait_phase("rejected", digest=second.digest)
    assert reason == report["reason"], report
    assert first.digest == report["active"]["digest"] == report["confirmed"]["digest"]
    assert expected_label() == operator.ask("after", ROW)["label"]
    assert "1.0.0" == operator.wait_answer("after")["model_version"]


def test_an_upgrade_drops_no_request(operator, agent, bundle, tmp_path, release):
    """Every request sent while the version changes is answered, by one version or the other."""
    deploy(operator, bundle)
    operator.wait_phase("confirmed")
    new = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release)
    stop = threading.Event()
    sent: list[str] = []

    def ask_all_the_time():
        while not stop.is_set():
            request_id = f"s{len(sent)}"
            message = json.dumps({**ROW, "request_id": request_id}).encode()
            operator.publish(operator.topics.infer("tiny"), message)
            sent.append(request_id)
            time.sleep(0.01)

    sender = threading.Thread(target=ask_all_the_time)
    sender.start()
    try:
        deploy(operator, new)
        operator.wait_phase("confirmed", digest=operator.upload(new).digest)
    finally:
        stop.set()
        sender.join()
    for request_id in sent:
        operator.wait_answer(request_id)
    answers = {
        d["request_id"]: d
        for d in operator.documents(operator.topics.prediction("tiny"))
        if "request_id" in d
    }
    assert [] == [i for i in sent if "label" not in answers.get(i, {})]
    assert {"1.0.0", "1.1.0"} == {answers[i]["model_version"] for i in sent}


@each_broker
def test_a_desired_state_that_is_not_for_us_is_refused(operator, agent, bundle, keys):
    """A wrong key, another device's state, a replay and an expired one change nothing."""
    model = deploy(operator, bundle)
    operator.wait_phase("confirmed")

    def refusal(text):
        return wait_until(lambda: text in operator.reported().get("refused", ""), text)

    operator.desire(key=keys.release_key)
    refusal("role deploy")
    operator.desire(device="d2")
    refusal("audience")
    operator.desire(generation=1)
    refusal("generation must be above 1, got 1")
    operator.publish(operator.topics.desired, b"rubbish", retain=True)
    refusal("desired state")
    report = operator.model()
    assert ("confirmed", model.digest) == (report["phase"], report["active"]["digest"])
    assert 1 == operator.reported()["generation"]
    operator.desire(model, generation=9)
    wait_until(lambda: operator.reported().get("generation") == 9, "the next good one is accepted")
    assert "" == operator.reported()["refused"]


def test_an_expired_state_starts_no_install(operator, agent, bundle):
    """Expiry bars starting an install, and says so."""
    model = operator.upload(bundle)
    operator.desire(model, lifetime_s=-60)
    wait_until(lambda: "expired" in operator.reported().get("refused", ""), "expired")
    assert {} == operator.model()


@each_broker
def test_removing_a_model(operator, agent, bundle, tmp_path):
    """A model that is no longer desired stops, and its files go."""
    deploy(operator, bundle)
    operator.wait_phase("confirmed")
    operator.desire()
    wait_until(lambda: operator.reported().get("models") == [], "no models")
    assert "not on this device" in operator.ask("gone", ROW)["error"]
    assert [] == list((tmp_path / "device/state/store/blobs/sha256").iterdir())


def test_going_back_needs_no_fetch(operator, agent, bundle, tmp_path, release):
    """A rollback that names no source uses what is on disk."""
    first = deploy(operator, bundle)
    operator.wait_phase("confirmed")
    second = deploy(operator, write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release))
    report = operator.wait_phase("confirmed", digest=second.digest)
    assert first.digest == report["previous"]["digest"]
    back = type(first)(name="tiny", version="1.0.0", digest=first.digest)
    operator.desire(back)
    operator.wait_phase("confirmed", digest=first.digest)
    assert "1.0.0" == operator.ask("back", ROW)["model_version"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_it_serves_without_the_network(
    operator, agent, bundle, broker, number, tmp_path
):
    """The last good model answers again at once; nothing is fetched."""
    deploy(operator, bundle)
    operator.wait_phase("confirmed")
    code = agent.stop(number)
    assert (0 if number == signal.SIGTERM else -9) == code
    wait_until(
        lambda: (operator.topics.status, b"offline") in [m[:2] for m in operator.messages],
        "offline",
        20,
    )
    broker.stop()
    agent.start()
    status = wait_until(
        lambda: (
            (s := json.loads(agent.command("status", "--json").stdout or "{}"))
            and s.get("running")
            and s
        ),
        "agent runs",
    )
    assert ("confirmed", False) == (status["models"][0]["phase"], status["connected"])
    broker.start()
    wait_until(
        lambda: json.loads(agent.command("status", "--json").stdout)["connected"], "reconnect", 40
    )
    assert expected_label() == operator.ask("again", ROW)["label"]


@each_broker
def test_a_broker_restart_is_survived(operator, agent, bundle, broker):
    """The agent reconnects by itself and says its state anew."""
    deploy(operator, bundle)
    operator.wait_phase("confirmed")
    broker.stop()
    operator.messages.clear()
    time.sleep(0.5)
    broker.start()
    wait_until(lambda: operator.reported().get("models"), "reported anew", 40)
    assert expected_label() == operator.ask("after", ROW)["label"]
    assert 0 == agent.stop()


def test_a_reply_goes_to_the_response_topic(broker, keys, agent, bundle):
    """An Open Inference Protocol request over MQTT 5 is answered in kind, with its correlation."""
    operator = Operator(broker.port, keys, protocol=mqtt.MQTTv5)
    try:
        deploy(operator, bundle)
        operator.wait_phase("probation")
        request = {
            "id": "o1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X[0].tolist()}],
        }
        topic = f"{operator.topics.base}/out/reply/me"
        operator.publish(
            operator.topics.infer("tiny"), json.dumps(request).encode(), response=topic
        )
        (reply,) = wait_until(lambda: operator.documents(topic), "reply")
        assert ("o1", "tiny", "1.0.0") == (reply["id"], reply["model_name"], reply["model_version"])
        outputs = {output["name"]: output for output in reply["outputs"]}
        assert [expected_label()] == outputs["label"]["data"]
        assert ("FP32", [1, 3]) == (
            outputs["probabilities"]["datatype"],
            outputs["probabilities"]["shape"],
        )
        elsewhere = json.dumps({**ROW, "request_id": "e1"}).encode()
        operator.publish(operator.topics.infer("tiny"), elsewhere, response="somewhere/else")
        wait_until(
            lambda: any(
                "response topic" in d.get("error", "")
                for d in operator.documents(operator.topics.prediction("tiny"))
            ),
            "refusal of a foreign response topic",
        )
    finally:
        operator.close()


@each_broker
def test_retained_requests_are_dropped(operator, agent, bundle):
    """A request that the broker kept would be answered after every reconnect."""
    deploy(operator, bundle)
    operator.wait_phase("confirmed")
    message = json.dumps({**ROW, "request_id": "kept"}).encode()
    operator.publish(operator.topics.infer("tiny"), message, retain=True)
    operator.wait_answer("kept")  # live delivery is not marked as retained
    operator.messages.clear()
    agent.stop()
    agent.start()
    wait_until(lambda: "request.dropped reason=retained" in agent.text(), "dropped")
    operator.ask("next", ROW)
    ids = [d.get("request_id") for d in operator.documents(operator.topics.prediction("tiny"))]
    assert ["next"] == ids


@pytest.mark.parametrize("source", ["file", "http"])
def test_fetching_from_a_file_and_over_http(operator, agent, bundle, tmp_path, source):
    """The whole bundle may come from elsewhere than the broker."""
    model = operator.upload(bundle)
    handler = lambda *a: SimpleHTTPRequestHandler(*a, directory=str(tmp_path))  # noqa: E731
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = {
            "file": bundle.as_uri(),
            "http": f"http://127.0.0.1:{server.server_port}/{bundle.name}",
        }[source]
        missing = url.replace("tiny-", "missing-")
        changed = {**{f: getattr(model, f) for f in model.__slots__}, "sources": (missing, url)}
        operator.desire(type(model)(**changed))
        operator.wait_phase("confirmed")
    finally:
        server.shutdown()
        server.server_close()
    assert expected_label() == operator.ask("r", ROW)["label"]


def test_a_source_that_is_away_is_tried_again(operator, agent, bundle, tmp_path):
    """A missing source is no reason to reject; the install goes on when it comes back."""
    model = operator.upload(bundle)
    late = tmp_path / "late.edgepack"
    changed = {**{f: getattr(model, f) for f in model.__slots__}, "sources": (late.as_uri(),)}
    operator.desire(type(model)(**changed))
    wait_until(
        lambda: "does not exist" in operator.model().get("detail", ""), "waits for the source"
    )
    assert "fetching" == operator.model()["phase"]
    late.write_bytes(bundle.read_bytes())
    operator.wait_phase("confirmed")


def test_two_unclean_exits_on_probation_roll_back(
    broker, operator, keys, tmp_path, bundle, release
):
    """A version that takes the agent down with it does not get a third chance."""
    quick = AgentProcess(tmp_path / "device", keys, broker.port, probation=SHORT)
    with running(quick) as agent:
        first = deploy(operator, bundle)
        operator.wait_phase("confirmed")
        agent.stop()
    slow = "[probation]\nrequests = 100000\nseconds = 600\n"
    patient = AgentProcess(tmp_path / "device", keys, broker.port, probation=slow)
    with running(patient):
        second = deploy(operator, write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release))
        operator.wait_phase("probation", digest=second.digest)
        patient.stop(signal.SIGKILL)
        patient.start()
        wait_until(lambda: patient.text().count("broker.connected") >= 3, "restarted")
        assert "1.1.0" == operator.ask("still", ROW)["model_version"]
        patient.stop(signal.SIGKILL)
        patient.start()
        report = operator.wait_phase("rolled_back", digest=second.digest)
        assert ("unclean_exits", first.digest) == (report["reason"], report["active"]["digest"])
        assert "1.0.0" == operator.ask("old", ROW)["model_version"]
        operator.messages.clear()
        patient.stop()
        patient.start()
        operator.wait_phase("rolled_back", digest=second.digest)
        assert "1.0.0" == operator.ask("older", ROW)["model_version"]
        # it is not tried again: what the accepted state demands was looked at by now
        assert "rolled_back" == operator.model()["phase"]


def test_an_unused_version_is_confirmed_and_says_so(operator, agent, bundle):
    """Probation ends by time; that nothing exercised the model is said."""
    deploy(operator, bundle)
    report = operator.wait_phase("confirmed")
    assert "unexercised" in report["detail"]


def test_a_less_accurate_version_goes_by_trusted_truths(operator, broker, keys, bundle, tmp_path):
    """Truths of a source that is marked as trusted roll back what is right less often."""
    release = PrivateKey.load(keys.release_key)
    probation = "[probation]\nrequests = 30\ntruths = 30\nseconds = 60\n"
    truths = "[truths]\ntrusted = true\n"
    judged = AgentProcess(tmp_path / "j", keys, broker.port, probation=probation, truths=truths)

    def exercise(version, label):
        for i in range(30):
            request_id = f"{version}-{i}"
            operator.ask(request_id, ROW)
            truth = json.dumps({"request_id": request_id, "label": label}).encode()
            operator.publish(operator.topics.truth("tiny"), truth)

    with running(judged):
        first = deploy(operator, bundle)
        operator.wait_phase("probation")
        exercise("old", expected_label())
        operator.wait_phase("confirmed")
        newer = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release)
        second = deploy(operator, newer)
        operator.wait_phase("probation", digest=second.digest)
        exercise("new", "something else")
        report = operator.wait_phase("rolled_back", digest=second.digest)
        assert ("probation_quality", first.digest) == (report["reason"], report["active"]["digest"])
        assert "1.0.0" == operator.ask("old", ROW)["model_version"]
        told = operator.topics.event("rollback")
        (event,) = wait_until(lambda: operator.documents(told), "the event")
        assert ("probation_quality", second.digest) == (event["reason"], event["digest"])


def test_a_hold_outlasts_a_change_for_another_model(operator, agent, bundle, tmp_path, release):
    """What a person on the device decided stands until its own model is asked for anew."""
    first = replace(deploy(operator, bundle), asked=1)
    operator.wait_phase("confirmed", digest=first.digest)
    newer = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release)
    second = replace(operator.upload(newer), asked=2)
    operator.desire(second)
    operator.wait_phase("confirmed", digest=second.digest)
    assert 0 == agent.command("rollback", "tiny").returncode
    held = wait_until(lambda: (m := operator.model()).get("held") and m, "held")
    assert ("rollback", first.digest) == (held["hold"], held["active"]["digest"])
    other = operator.upload(write_tiny_bundle(tmp_path, name="other", key=release))
    operator.desire(second, replace(other, asked=3))
    wait_until(lambda: operator.model("other").get("phase") == "confirmed", "the other model")
    assert first.digest == operator.model()["active"]["digest"]
    assert 0 == agent.command("release", "tiny").returncode
    operator.wait_phase("confirmed", digest=second.digest)

    def holds():
        return [doc["held"] for doc in operator.documents(operator.topics.event("hold"))]

    wait_until(lambda: holds() == [True, False], "both events")


def test_an_offer_is_installed_at_the_push_of_a_button(operator, agent, bundle, release, tmp_path):
    """It is shown with its size, fetched when somebody asks, and every command is answered."""
    offered = replace(operator.upload(bundle), mode=Mode.OFFER)
    operator.desire(offered)
    shown = wait_until(lambda: operator.model().get("offered"), "the offer")
    assert (offered.digest, "1.0.0") == (shown["digest"], shown["version"])
    assert bundle.stat().st_size == shown["size_bytes"]
    assert "offered 1.0.0" in agent.command("status").stdout
    topic = f"{operator.topics.base}/in/cmd"

    def press(op, request_id, **fields):
        payload = json.dumps({"request_id": request_id, **fields}).encode()
        operator.publish(f"{topic}/{op}", payload)

        def answer():
            found = operator.documents(operator.topics.event("command"))
            return next((doc for doc in found if doc.get("request_id") == request_id), None)

        return wait_until(answer, f"answer to {request_id}")

    wrong = "sha256:" + "0" * 64
    assert "not_offered" == press("install", "c1", model="tiny", digest=wrong)["reason"]
    assert "refused" == press("install", "c2", model="tiny")["reason"]
    assert "unknown_op" == press("reboot", "c3")["reason"]
    kept = json.dumps({"model": "tiny", "digest": offered.digest}).encode()
    agent.stop()
    operator.publish(f"{topic}/install", kept, retain=True)
    agent.start()
    wait_until(lambda: "command.dropped reason=retained" in agent.text(), "dropped")
    operator.publish(f"{topic}/install", b"", retain=True)
    assert [] == [slot for slot in operator.reported()["models"] if slot.get("active")]
    assert press("install", "c4", model="tiny", digest=offered.digest)["accepted"]
    operator.wait_phase("confirmed", digest=offered.digest)
    assert "offered" not in operator.model()
    newer = operator.upload(write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release))
    operator.desire(replace(offered, mode=Mode.INSTALL), replace(newer, mode=Mode.OFFER))
    wait_until(lambda: "offered" in operator.model(), "the next offer")
    done = agent.command("install", "--offered", "tiny")
    assert (0, True) == (done.returncode, "serving 1.1.0" in done.stdout.splitlines()[-1])


def test_a_challenger_sees_the_same_and_is_promoted(operator, agent, bundle, tmp_path, release):
    """Its disagreement is reported, what answers is the model, and promoting it fetches nothing."""
    first = deploy(operator, bundle)
    operator.wait_phase("confirmed")
    newer = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release)
    second = operator.upload(newer)
    operator.desire(first, replace(second, mode=Mode.SHADOW))
    wait_until(lambda: operator.model().get("shadow", {}).get("phase") == "shadowing", "shadowing")
    rows = np.random.default_rng(5).normal(size=(20, 4)).astype(np.float32)
    for i, row in enumerate(rows):
        features = dict(zip(FEATURES, map(float, row), strict=True))
        assert "1.0.0" == operator.ask(f"s{i}", features)["model_version"]
    differing = sum(tiny_model(0).predict(rows)["label"] != tiny_model(1).predict(rows)["label"])

    def compared():
        shadow = operator.model().get("shadow", {})
        return shadow if shadow.get("requests") == 20 else None

    shadow = wait_until(compared, "all compared")
    assert (second.digest, 0, 0) == (
        shadow["active"]["digest"],
        shadow["dropped"],
        shadow["errors"],
    )
    assert differing / 20 == shadow["figures"]["disagreement"]

    def measured():
        documents = operator.documents(operator.topics.metrics("tiny"))
        return next((doc for doc in documents if doc.get("shadow_requests") == 20), None)

    metrics = wait_until(measured, "metrics of all")
    assert "1.1.0" == metrics["shadow_version"]
    assert metrics["shadow_latency_p50_ms"] > 0
    assert "20 compared" in agent.command("status").stdout
    operator.desire(replace(second, sources=()))
    operator.wait_phase("confirmed", digest=second.digest)
    wait_until(lambda: "shadow" not in operator.model(), "no challenger any more")
    assert "1.1.0" == operator.ask("after", ROW)["model_version"]
