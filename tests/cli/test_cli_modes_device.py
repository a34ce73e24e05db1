"""Offers and challengers from the command line to a real device and back."""

import json

import numpy as np
import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.tiny_bundle import FEATURES, tiny_model, write_tiny_bundle

from edgepack.trust import GeneratedKeys, PrivateKey, Root

SHORT = "[probation]\nrequests = 5\nseconds = 0.3\n"


@pytest.fixture
def files(keys):
    return GeneratedKeys(
        root_key=keys / "root.key",
        release_key=keys / "release.key",
        deploy_key=keys / "deploy.key",
        root_json=keys / "root.json",
        root=Root.load(keys / "root.json"),
    )


@pytest.fixture
def agent(tmp_path, files, mosquitto, prefix):
    top = f'prefix = "{prefix}"\n'
    made = AgentProcess(tmp_path / "device", files, mosquitto.port, probation=SHORT, top=top)
    with running(made):
        wait_until(lambda: "broker.connected" in made.text(), "it is connected")
        yield made


@pytest.fixture
def deploy(edgepack, keys, mosquitto, prefix):
    """`deploy(bundle, "--offer")`: to the device, and wait for it."""
    options = ["--keys", keys, "--broker", mosquitto.url, "--prefix", prefix]

    def run(*arguments, verb="deploy"):
        wait = ["--device", "d1", "--wait", "--timeout", "60"]
        return edgepack(verb, *arguments, *options, *wait)

    return run


@pytest.fixture
def newer(tmp_path, keys):
    key = PrivateKey.load(keys / "release.key")
    return write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=key, sequence=101)


def test_an_offer(deploy, agent, bundle, newer):
    """Nothing is installed before somebody on the device asks for it."""
    assert 0 == deploy(bundle).code
    offered = deploy(newer, "--offer")
    assert (0, True) == (offered.code, offered.out.endswith("d1: generation 2, offered\n"))
    status = agent.command("status").stdout
    assert "serving 1.0.0" in status
    assert "offered 1.1.0" in status
    taken = agent.command("install", "--offered", "tiny")
    assert (0, True) == (taken.returncode, "serving 1.1.0" in taken.stdout.splitlines()[-1])
    withdrawn = deploy("tiny", "--offer", verb="remove")
    assert (0, True) == (withdrawn.code, "removed" in withdrawn.out), withdrawn.err


def test_a_challenger(edgepack, deploy, agent, bundle, newer, files, mosquitto, prefix):
    """Cast, compared, seen in `watch`, promoted; what answers already cannot be one."""
    alone = edgepack(
        *("deploy", newer, "--shadow", "--device", "d1", "--keys", files.root_json.parent),
        *("--broker", mosquitto.url, "--prefix", prefix, "--wait", "--timeout", "10"),
    )
    assert (7, True) == (alone.code, "no version answers beside it" in alone.err), alone.err
    assert 0 == deploy(bundle).code
    cast = deploy(newer, "--shadow")
    assert (0, True) == (cast.code, cast.out.endswith("shadowing\n")), cast.err
    rows = np.random.default_rng(5).normal(size=(20, 4)).astype(np.float32)
    differing = sum(tiny_model(0).predict(rows)["label"] != tiny_model(1).predict(rows)["label"])
    operator = Operator(mosquitto.port, files, prefix=prefix)
    try:
        for number, row in enumerate(rows):
            features = dict(zip(FEATURES, map(float, row), strict=True))
            assert "1.0.0" == operator.ask(f"s{number}", features)["model_version"]
    finally:
        operator.close()

    def watched():
        line = edgepack(
            "watch", "--once", "--json", "--broker", mosquitto.url, "--prefix", prefix
        ).out.splitlines()[-1]
        return json.loads(line).get("shadow_disagreement")

    wait_until(lambda: watched() == differing / 20, f"{differing} of 20 in watch")
    promoted = deploy(newer)
    assert (0, True) == (promoted.code, "confirmed" in promoted.out)
    assert "serving 1.1.0" in agent.command("status").stdout
    again = deploy(newer, "--shadow")
    assert (8, True) == (again.code, "is_champion" in again.out + again.err), again.out
    assert "is itself the version that answers" in agent.command("status").stdout
