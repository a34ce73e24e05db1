"""A device follows the root of trust: through the broker, by hand, and what follows from it."""

import json

import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.roots import Authority
from support.tiny_bundle import FEATURES, write_tiny_bundle

from edgepack.trust import DEPLOY, RELEASE, ROOT, Root, keygen
from edgepack.trust.root_chain import chain_file, follow_chain, newest_kept
from edgepack.wire.desired import MAX_GENERATION
from edgepack.wire.topics import root_topic

ROW = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))
SHORT = "[probation]\nrequests = 5\nseconds = 0.3\n"


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


@pytest.fixture
def authority(keys):
    return Authority.of(keys)


@pytest.fixture
def operator(mosquitto, keys, prefix):
    made = Operator(mosquitto.port, keys, prefix=prefix)
    yield made
    made.close()


@pytest.fixture
def agent(tmp_path, mosquitto, keys, prefix):
    made = AgentProcess(
        tmp_path / "device", keys, mosquitto.port, probation=SHORT, top=f'prefix = "{prefix}"\n'
    )
    with running(made):
        yield made


def publish_root(operator, authority, version):
    data = authority.versions[version - 1]
    operator.publish(root_topic(operator.topics.prefix, version), data, retain=True)


def restart(operator, agent):
    agent.stop()
    operator.messages.clear()
    agent.start()
    wait_until(operator.reported, "the agent is back")


def wait_root(operator, version):
    wait_until(
        lambda: operator.reported().get("root_version") == version, f"root version {version}"
    )


def wait_refused(operator, text):
    wait_until(lambda: text in operator.reported().get("refused", ""), text)


def test_a_device_follows_several_versions_one_after_the_other(operator, agent, authority):
    """Version 3 is taken although version 2 arrived at the same time; a restart knows it."""
    for _ in range(2):
        authority.rotate(ROOT, DEPLOY)
    for version in (3, 2):
        publish_root(operator, authority, version)
    wait_root(operator, 3)
    restart(operator, agent)
    wait_root(operator, 3)
    authority.rotate(ROOT)
    publish_root(operator, authority, 4)
    wait_root(operator, 4)


def test_a_removed_deploy_key_is_refused_and_fast_forward_is_undone(
    operator, agent, authority, tmp_path
):
    """A thief of the deploy key made the generation as large as it can be; a new root mends it."""
    stolen = authority.save(DEPLOY, tmp_path)
    bundle = write_tiny_bundle(tmp_path, key=authority.keys[RELEASE])
    model = operator.upload(bundle)
    operator.desire(model, generation=MAX_GENERATION, key=stolen)
    operator.wait_phase("confirmed")
    operator.desire(model, generation=5, key=stolen)
    wait_refused(operator, "generation must be above")
    authority.rotate(DEPLOY)
    new_key = authority.save(DEPLOY, tmp_path)
    operator.desire(model, generation=1, key=new_key)  # it comes before the root: judged again
    wait_refused(operator, "role deploy")
    publish_root(operator, authority, 2)
    wait_until(lambda: operator.reported().get("generation") == 1, "generation 1")
    assert "" == operator.reported()["refused"]
    operator.desire(generation=9, key=stolen)
    wait_refused(operator, "role deploy")
    assert model.digest == operator.model()["active"]["digest"]


def test_a_revoked_state_is_no_longer_followed_but_goes_on_serving(
    operator, agent, authority, tmp_path
):
    """The accepted state's key is gone: nothing of it is started any more, nothing stops."""
    bundle = write_tiny_bundle(tmp_path, key=authority.keys[RELEASE])
    operator.desire(operator.upload(bundle))
    operator.wait_phase("confirmed")
    authority.rotate(DEPLOY)
    publish_root(operator, authority, 2)
    wait_refused(operator, "does not vouch for it any more")
    assert 0 == operator.reported()["generation"]
    restart(operator, agent)
    assert "1.0.0" == operator.ask("after", ROW)["model_version"]
    assert "confirmed" == operator.model()["phase"]


def test_a_bundle_of_a_removed_release_key_serves_on_but_is_not_installed_anew(
    operator, agent, authority, tmp_path
):
    """What runs runs, also after a restart; the same key installs nothing more, not even back."""
    stolen = authority.keys[RELEASE]
    first = operator.upload(write_tiny_bundle(tmp_path, key=stolen))
    operator.desire(first)
    operator.wait_phase("confirmed")
    authority.rotate(RELEASE)
    second = operator.upload(
        write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=authority.keys[RELEASE])
    )
    publish_root(operator, authority, 2)
    wait_root(operator, 2)
    restart(operator, agent)
    assert "1.0.0" == operator.ask("old", ROW)["model_version"]
    operator.desire(second)
    operator.wait_phase("confirmed", digest=second.digest)
    back = type(first)(name="tiny", version="1.0.0", digest=first.digest)  # it is on disk
    operator.desire(back)
    assert "not_trusted" == operator.wait_phase("rejected", digest=first.digest)["reason"]
    third = operator.upload(write_tiny_bundle(tmp_path, version="1.2.0", seed=2, key=stolen))
    operator.desire(third)
    assert "not_trusted" == operator.wait_phase("rejected", digest=third.digest)["reason"]
    assert "1.1.0" == operator.ask("new", ROW)["model_version"]


def test_a_forged_root_is_refused_and_said_and_the_true_one_taken(
    operator, agent, authority, tmp_path
):
    """Whoever may write on the broker cannot make a root, nor keep the true one away for long."""
    forger = Authority.of(keygen(tmp_path / "forger"))
    forger.rotate(DEPLOY)
    topic = root_topic(operator.topics.prefix, 2)
    operator.publish(topic, forger.versions[1], retain=True)
    notice = wait_until(lambda: operator.reported().get("notices", {}).get("root"), "the notice")
    assert "is not signed by the root role of version 1" in notice
    authority.rotate(DEPLOY)
    publish_root(operator, authority, 2)
    wait_root(operator, 2)
    assert {} == operator.reported()["notices"]


@pytest.mark.parametrize("is_running", [True, False])
def test_a_root_by_hand_needs_no_network(tmp_path, keys, authority, is_running):
    """Files are followed in the order of their versions; what does not follow exits with 5."""
    for _ in range(2):
        authority.rotate(ROOT, DEPLOY)
    files = []
    for version in (1, 3, 2):
        files.append(tmp_path / f"r{version}.json")
        files[-1].write_bytes(authority.versions[version - 1])
    agent = AgentProcess(tmp_path / "device", keys, None)
    if is_running:
        agent.start()
        wait_until((tmp_path / "device/state/agent.sock").exists, "the agent's door")
    try:
        refused = agent.command("root", str(files[1]))
        assert (5, 1) == (refused.returncode, refused.stderr.count("\n"))
        assert "the next root.json must have version 2, got 3" in refused.stderr
        done = agent.command("root", "--json", *map(str, files))
        assert (0, {"root_version": 3}) == (done.returncode, json.loads(done.stdout))
        assert "root.json version 3\n" == agent.command("root").stdout
    finally:
        agent.kill()


def test_the_anchor_with_the_higher_version_wins(tmp_path, authority):
    """What is kept counts only as far as it follows from the anchor of agent.toml."""
    for _ in range(3):
        authority.rotate(ROOT)
    for version, data in enumerate(authority.versions[1:3], 2):
        chain_file(tmp_path, version).write_bytes(data)
    first, last = authority.versions[0], authority.versions[3]
    assert 3 == follow_chain(Root.parse(first), tmp_path).version
    assert authority.versions[2] == newest_kept(first, tmp_path)
    assert 4 == follow_chain(Root.parse(last), tmp_path).version
    assert last == newest_kept(last, tmp_path)


def test_kept_roots_of_another_anchor_count_for_nothing(tmp_path, authority):
    """A state folder that somebody wrote into leads no further than the anchor's own signatures."""
    stranger = Authority.of(keygen(tmp_path / "other"))
    stranger.rotate(DEPLOY)
    chain_file(tmp_path, 2).write_bytes(stranger.versions[1])
    anchor = Root.parse(authority.versions[0])
    assert anchor == follow_chain(anchor, tmp_path)
    chain_file(tmp_path, 2).write_bytes(b"rubbish")
    assert anchor == follow_chain(anchor, tmp_path)


def test_an_anchor_that_was_exchanged_by_hand_takes_back_the_accepted_state(
    operator, agent, authority, keys, tmp_path
):
    """A new root.json by hand, after losing the root key: the old deploy key is out."""
    bundle = write_tiny_bundle(tmp_path, key=authority.keys[RELEASE])
    operator.desire(operator.upload(bundle))
    operator.wait_phase("confirmed")
    agent.stop()
    other = Authority.of(keygen(tmp_path / "other"))
    keys.root_json.write_bytes(other.versions[0])
    operator.messages.clear()
    agent.start()
    wait_refused(operator, "does not vouch for it any more")
    operator.desire(operator.upload(bundle), generation=1, key=other.save(DEPLOY, tmp_path))
    wait_until(lambda: operator.reported().get("generation") == 1, "the generation began again")
    assert "1.0.0" == operator.ask("after", ROW)["model_version"]
