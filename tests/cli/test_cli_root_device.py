"""A key is rotated under a real device: the commands that the docs name, one after the other."""

import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.trust import GeneratedKeys, PrivateKey, Root

SHORT = "[probation]\nrequests = 5\nseconds = 0.3\n"


@pytest.fixture
def agent(tmp_path, keys, broker, prefix):
    """An agent that was given a copy of the first root.json, as a device is."""
    given = tmp_path / "given.json"
    given.write_bytes((keys / "root.json").read_bytes())
    files = GeneratedKeys(
        root_key=keys / "root.key",
        release_key=keys / "release.key",
        deploy_key=keys / "deploy.key",
        root_json=given,
        root=Root.load(given),
    )
    top = f'prefix = "{prefix}"\n'
    made = AgentProcess(tmp_path / "device", files, broker.port, probation=SHORT, top=top)
    with running(made):
        yield made


def test_a_planned_rotation_of_all_keys(edgepack, keys, bundle, agent, broker, prefix, tmp_path):
    """rotate, publish, deploy: the device follows and installs what only the new keys signed."""
    options = ["--keys", keys, "--broker", broker.url, "--prefix", prefix]
    wait = ["--device", "d1", "--wait", "--timeout", "60"]
    first = edgepack("deploy", bundle, *options, *wait)
    assert 0 == first.code, first.err
    everybody = ["--new", "root", "--new", "release", "--new", "deploy"]
    rotated = edgepack("root", "rotate", *everybody, "--keys", keys)
    assert (0, True) == (rotated.code, "edgepack root publish" in rotated.err)
    published = edgepack("root", "publish", *options)
    assert (0, True) == (published.code, "the new deploy key is in use" in published.out)
    key = PrivateKey.load(keys / "release.key")
    second = write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=key, sequence=101)
    # at once: the device has perhaps not followed yet, and must not be taken to have refused
    deployed = edgepack("deploy", second, *options, *wait, "--keep-retired")
    assert 0 == deployed.code, deployed.err
    assert "refused" not in deployed.err
    old = edgepack("deploy", bundle, *options, *wait)  # signed by yesterday's release key
    assert (5, True) == (old.code, "role release" in old.err)
    wait_until(lambda: "root.followed version=2" in agent.text(), "the device follows")
    edgepack("root", "rotate", "--new", "deploy", "--keys", keys)
    assert 0 == edgepack("root", "publish", *options).code
    wait_until(lambda: "root.followed version=3" in agent.text(), "the device follows again")
