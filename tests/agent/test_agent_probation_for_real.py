"""What passes its self-test and fails at work goes back by itself, on a real device."""

import json

import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.moody_models import LARGE, failing_model, slow_model
from support.tiny_bundle import FEATURES, write_tiny_bundle

from edgepack.trust import PrivateKey

# nothing but the fault ends a probation here
LONG = "[probation]\nrequests = 100000\nseconds = 3600\nmin_samples = 30\nlatency_slack_ms = 0.1\n"
SHORT = "[probation]\nrequests = 100000\nseconds = 0.3\n"
PLAIN = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))
HEAVY = {**PLAIN, "wear": 2 * LARGE}


def ask_until(operator, features, condition, what):
    """Ask one request after the other until something is the case."""
    numbers = iter(range(10_000))

    def asked():
        payload = json.dumps({**features, "request_id": f"{what}-{next(numbers)}"}).encode()
        operator.publish(operator.topics.infer("tiny"), payload)
        return condition()

    return wait_until(asked, what, 120)


@pytest.mark.parametrize(
    ("model", "reason", "detail"),
    [
        (failing_model, "probation_errors", "requests failed on probation"),
        (slow_model, "probation_latency", "of the version before, allowed 2 times"),
    ],
)
def test_what_fails_at_work_goes_back(operator, alone, keys, tmp_path, model, reason, detail):
    """The version before answers again, and the reason is reported, as events and in the slot."""
    release = PrivateKey.load(keys.release_key)
    good = write_tiny_bundle(tmp_path, key=release)
    bad = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=release, model=model(1))
    agent = AgentProcess(tmp_path / "device", keys, alone.port, probation=SHORT)
    with running(agent):
        first = operator.upload(good)
        operator.desire(first)
        operator.wait_phase("confirmed")
        agent.stop()
        agent.config.write_text(agent.config.read_text().replace(SHORT, LONG))
        agent.start()
        wait_until(lambda: agent.text().count("broker.connected") == 2, "it is back")
        for number in range(60):  # what the next version's latency is compared with
            operator.ask(f"before-{number}", HEAVY)
        second = operator.upload(bad)
        operator.desire(second)
        operator.wait_phase("probation", digest=second.digest)
        assert "1.1.0" == operator.ask("still-good", PLAIN)["model_version"]
        ask_until(operator, HEAVY, lambda: operator.model().get("phase") == "rolled_back", "back")
        report = operator.model()
        assert (first.digest, first.digest, reason) == (
            report["active"]["digest"],
            report["confirmed"]["digest"],
            report["reason"],
        )
        assert detail in report["detail"]
        numbers = iter(range(1000))
        wait_until(
            lambda: operator.ask(f"after-{next(numbers)}", HEAVY)["model_version"] == "1.0.0",
            "the version before answers",
        )

        def told():
            return operator.documents(operator.topics.event("rollback"))

        wait_until(told, "the event")
        assert [(second.digest, reason)] == [(doc["digest"], doc["reason"]) for doc in told()]
