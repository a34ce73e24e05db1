"""A device's signed history, made by a real agent and proved by the real command."""

import asyncio
import json
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace

import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.errors import StoreError
from edgepack.agent.install import sealing
from edgepack.agent.install.chain import Who, acting
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.sealing import Sealer
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.transitions import Phase
from edgepack.agent.install.worker import Worker
from edgepack.fleet.audit import Expected, prove
from edgepack.trust import EVENT_PAYLOAD_TYPE, PrivateKey, dsse, keygen
from edgepack.wire.audit import parse_event, serving_after
from edgepack.wire.messages import Release

SHORT = "[probation]\nrequests = 5\nseconds = 0.3\n"
A, B = ("sha256:" + letter * 64 for letter in "ab")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


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


@pytest.fixture
def bundle(tmp_path, keys):
    return write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))


def edgepack(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgepack.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def phases(lines):
    events = [parse_event(dsse.unverified_payload(line, EVENT_PAYLOAD_TYPE)) for line in lines]
    return [event.phase for event in events if event.kind == "transition"]


def exported(agent):
    return agent.command("audit").stdout.encode().splitlines()


def all_signed(agent):
    done = agent.command("audit")
    return done.stdout if "confirmed" in phases(done.stdout.encode().splitlines()) else None


def test_what_ran_is_proved_from_the_broker_and_offline(
    operator, agent, bundle, keys, mosquitto, tmp_path, prefix
):
    """Every transition is signed, and says who wanted it and what the self-test measured."""
    model = operator.upload(bundle)
    operator.desire(model)
    operator.wait_phase("confirmed")
    history = tmp_path / "history.jsonl"
    history.write_text(wait_until(lambda: all_signed(agent), "all events are signed"))
    key = agent.command("audit", "--key").stdout.strip()
    wait_until(
        lambda: operator.documents(operator.topics.info)[-1].get("key") == key, "the key in info"
    )
    options = ["--key", key, "--root", keys.root_json, "--json"]
    offline = edgepack("audit", "verify", history, *options)
    assert 0 == offline.returncode, offline.stderr
    proof = json.loads(offline.stdout)
    transitions = [event for event in proof["events"] if event["kind"] == "transition"]
    expected = "fetching verifying staging testing switching probation confirmed"
    assert expected == " ".join(event["phase"] for event in transitions)
    last = transitions[-1]
    assert (model.digest, "onnx-fp32", "desired", 1, 64.0) == (
        last["active"],
        last["variant"],
        last["actor"],
        last["generation"],
        last["self_test"]["rows"],
    )
    assert 1 == len(last["signers"])

    def flat():
        return operator.documents(operator.topics.event("transition"))[-1]["number"]

    wait_until(lambda: last["number"] == flat(), "the same event unsigned")

    broker = ["--device", "d1", "--prefix", prefix, "--broker", mosquitto.url]

    def from_broker():
        done = edgepack("audit", "verify", *broker, *options)
        same = done.returncode == 0 and json.loads(done.stdout)["events"] == proof["events"]
        return same or None

    wait_until(from_broker, "the broker has the same history")
    listed = edgepack("audit", "verify", *broker, "--list")
    assert (0, True) == (listed.returncode, "generation 1 by" in listed.stdout)
    assert "--key pins it" in listed.stderr
    again = agent.command("audit", "--publish")
    assert (0, True) == (again.returncode, "are published again" in again.stdout)
    copy = tmp_path / "export.jsonl"
    assert 0 == edgepack("audit", "export", *broker, "-o", copy).returncode
    assert history.read_bytes() == copy.read_bytes()

    lines = history.read_text().splitlines(keepends=True)
    history.write_text("".join(lines[:3] + lines[4:]))
    broken = edgepack("audit", "verify", history, "--key", key)
    assert (5, 1) == (broken.returncode, broken.stderr.count("\n"))
    assert "removed: event 4 is missing" in broken.stderr


def test_the_key_is_for_the_device_alone(agent, operator, tmp_path):
    """The private key has mode 0600 and never leaves the state folder."""
    path = tmp_path / "device/state/device.key"
    wait_until(path.exists, "the key")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_what_a_kill_left_unsigned_is_signed_after_the_next_start(
    operator, agent, bundle, tmp_path
):
    """Events are durable with the slot change; the signature may come later."""
    operator.desire(operator.upload(bundle))
    operator.wait_phase("testing")
    agent.stop(signal.SIGKILL)
    kept = Journal(tmp_path / "device/state/agent.db", read_only=True)
    entries, slot = kept.chain.kept(), kept.slots()["tiny"]
    kept.close()
    assert slot.phase.value == parse_event(entries[-1].payload).phase
    assert [] != [entry for entry in entries if entry.envelope is None]
    agent.start()
    operator.wait_phase("confirmed")
    wait_until(lambda: all_signed(agent), "all events are signed")
    key = PrivateKey.load(tmp_path / "device/state/device.key").public
    proof = prove({"history": exported(agent)}, Expected(keys=(key,)))
    assert () == proof.findings
    assert {entry.number for entry in entries} <= {event.number for event in proof.events}


def test_a_restored_state_folder_is_found_out(operator, agent, bundle, tmp_path):
    """Putting back an old copy of the state makes a fork, which two exports show."""
    wait_until((tmp_path / "device/state/device.key").exists, "the agent has its key")
    agent.stop()
    state, copy = tmp_path / "device/state", tmp_path / "copy"
    shutil.copytree(state, copy)
    agent.start()
    operator.desire(operator.upload(bundle))
    operator.wait_phase("confirmed")
    wait_until(lambda: all_signed(agent), "all events are signed")
    before = exported(agent)
    agent.stop()
    shutil.rmtree(state)
    shutil.copytree(copy, state)
    operator.messages.clear()
    agent.start()
    operator.wait_phase("confirmed")
    wait_until(lambda: all_signed(agent), "all events are signed")
    key = PrivateKey.load(state / "device.key").public
    proof = prove({"before": before, "after": exported(agent)}, Expected(keys=(key,)))
    assert "fork" in {finding.kind for finding in proof.findings}
    assert "restored from a copy" in proof.findings[0].detail


def test_a_command_on_the_device_is_its_own_actor(tmp_path, keys, bundle):
    """What somebody installs by hand is told apart from what was desired."""
    agent = AgentProcess(tmp_path / "device", keys, None, probation=SHORT)
    assert 0 == agent.command("install", str(bundle)).returncode
    journal = Journal(tmp_path / "device/state/agent.db", read_only=True)
    events = [parse_event(entry.payload) for entry in journal.chain.kept()]
    journal.close()
    assert {"local"} == {event.actor for event in events if event.kind == "transition"}


# The chain alone


WHO = Who(device="d1", prefix="p", instance="ab" * 16, clock=lambda: "behind")


class Broker:
    def __init__(self):
        self.connected = asyncio.Event()
        self.said = {}

    async def publish(self, topic, payload, *, retain=False):
        assert retain
        self.said[topic] = payload


def journal_of(tmp_path):
    journal = Journal(tmp_path / "agent.db")
    journal.chain.who = WHO
    return journal


def sealer_of(tmp_path, journal, broker, notice=lambda detail: None):
    worker = Worker(tmp_path / "root.json", tmp_path / "roots", self_test_timeout_s=20)
    return Sealer(
        tmp_path,
        WHO,
        journal,
        worker,
        broker,
        slots=lambda: journal.slots().values(),
        keyed=lambda key: None,
        notice=notice,
    )


def slot_of(digest, phase=Phase.CONFIRMED):
    installed = Installed(
        release=Release(digest=digest, version="1.0.0", sequence=3), variant="onnx-fp32"
    )
    return Slot(name="m", phase=phase, target=digest, active=installed, confirmed=installed)


def test_old_events_give_way_to_a_signed_checkpoint(tmp_path, monkeypatch):
    """The history stays provable, also after a second checkpoint, and says what answered then."""
    monkeypatch.setattr(sealing, "KEPT", 5)
    monkeypatch.setattr(sealing, "_KEPT_AT_MOST", 8)
    journal = journal_of(tmp_path)
    sealer = sealer_of(tmp_path, journal, Broker())

    def lines():
        return [journal.chain.checkpoint(), *(entry.envelope for entry in journal.chain.kept())]

    for _ in range(2):
        for _ in range(5):
            journal.save_slot(slot_of(A))
            journal.save_slot(slot_of(B))
        asyncio.run(sealer.seal())
        assert 5 == journal.chain.count()
        proof = prove({"a": lines()}, Expected())  # the checkpoint names the key
        assert () == proof.findings
        assert (PrivateKey.load(tmp_path / "device.key").public.raw.hex(),) == proof.keys
    assert ["behind", "expiry"] == [proof.events[0].clock, proof.events[0].unchecked]
    journal.close()
    again = journal_of(tmp_path)
    again.save_slot(slot_of(A))
    assert 22 == again.chain.head().number  # 20 slots, one key, and this
    again.close()


def test_only_what_the_broker_keeps_is_published_and_again_when_it_lost_it(tmp_path, monkeypatch):
    """After months offline the last events go out, not those that they would overwrite."""
    monkeypatch.setattr(sealing, "PLACES", 4)
    journal, broker = journal_of(tmp_path), Broker()
    sealer = sealer_of(tmp_path, journal, broker)
    for _ in range(9):
        journal.save_slot(slot_of(A))

    async def until_said(count):
        async with asyncio.timeout(20):
            while len(broker.said) < count:
                await asyncio.sleep(0.01)

    async def main():
        await sealer.seal()
        task = asyncio.create_task(sealer.run())
        broker.connected.set()
        await until_said(4)
        assert [] == journal.chain.unsent(99)
        broker.said.clear()  # it lost its retained messages
        sealer.resend()
        await until_said(4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    topics = [f"p/d1/out/audit/abababab-{number}" for number in (7, 8, 9, 10)]
    assert topics == list(broker.said)
    journal.close()


def test_a_change_that_is_not_durable_is_not_in_the_history(tmp_path, monkeypatch):
    """A slot and its event are kept in one transaction: both or neither."""
    journal = journal_of(tmp_path)
    journal.save_slot(slot_of(A))

    def full(slot):
        raise StoreError("disk full")

    monkeypatch.setattr(journal.chain, "transition", full)
    with pytest.raises(StoreError, match="disk full"):
        journal.save_slot(slot_of(B))
    assert (A, 1) == (journal.slots()["m"].active.digest, journal.chain.head().number)
    journal.close()


def test_a_kill_while_the_key_is_made_leaves_no_half_of_one(tmp_path):
    """What a killed child left is thrown away, and a whole key made."""
    journal = journal_of(tmp_path)
    (tmp_path / "device.key.new").write_bytes(b"-----BEGIN PRIV")
    journal.save_slot(slot_of(A))
    asyncio.run(sealer_of(tmp_path, journal, Broker()).seal())
    assert [] == journal.chain.unsigned(9)
    assert not (tmp_path / "device.key.new").exists()
    journal.close()


def test_a_damaged_key_is_said_and_stops_nothing(tmp_path, monkeypatch):
    """Events wait, durable, until somebody mends or removes the key file."""
    monkeypatch.setattr(sealing, "_RETRY_S", 0.05)
    journal, told = journal_of(tmp_path), []
    (tmp_path / "device.key").write_bytes(b"rubbish")
    (tmp_path / "device.key").chmod(0o600)
    sealer = sealer_of(tmp_path, journal, Broker(), told.append)
    journal.save_slot(slot_of(A))

    async def main():
        task = asyncio.create_task(sealer.run())
        async with asyncio.timeout(20):
            while not told:
                await asyncio.sleep(0.01)
            (tmp_path / "device.key").unlink()
            while journal.chain.unsigned(9) or told[-1]:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert "must be an unencrypted Ed25519 private key" in told[0]
    journal.close()


def test_a_device_key_that_was_lost_is_replaced_and_that_is_an_event(tmp_path):
    """The new key signs on; whoever pinned the old one learns of it."""
    journal = journal_of(tmp_path)
    sealer = sealer_of(tmp_path, journal, Broker())
    journal.save_slot(slot_of(A))
    asyncio.run(sealer.seal())
    old = PrivateKey.load(tmp_path / "device.key").public
    (tmp_path / "device.key").unlink()
    journal.save_slot(slot_of(B))
    asyncio.run(sealer.seal())
    new = PrivateKey.load(tmp_path / "device.key").public
    lines = [entry.envelope for entry in journal.chain.kept()]
    assert () == prove({"a": lines}, Expected(keys=(old, new))).findings
    assert {"forged"} == {f.kind for f in prove({"a": lines}, Expected(keys=(old,))).findings}
    journal.close()


def test_an_actor_holds_for_what_is_begun_inside(tmp_path):
    """Somebody's word is the reason for what their command does, and for nothing else."""
    journal = journal_of(tmp_path)
    managed = Slot(name="m", managed=True)
    with acting("cmd"):
        journal.save_slot(managed)
    journal.save_slot(managed)
    journal.delete_slot(managed)
    actors = [parse_event(entry.payload).actor for entry in journal.chain.kept()]
    assert ["cmd", "desired", "desired"] == actors
    journal.close()


def test_a_floor_outlives_its_model(tmp_path):
    """Removing a model and sending it again does not open the door to an old release."""
    journal = journal_of(tmp_path)
    journal.save_slot(Slot(name="m", floor=7))
    journal.save_slot(Slot(name="n"))
    journal.delete_slot(Slot(name="m", floor=7))
    journal.delete_slot(Slot(name="n"))
    assert {"m": 7} == journal.removed_floors()
    journal.close()


def test_a_challenger_is_no_part_of_what_answers(tmp_path):
    """Its events are in the history and say so; what the chain says is serving is the model."""
    journal = journal_of(tmp_path)
    release = Release(digest="sha256:" + "a" * 64, version="1", sequence=1)
    installed = Installed(release=release, variant="v")
    journal.save_slot(Slot(name="m", active=installed))
    shadow = Slot(name="m", shadow=True, active=replace(installed, variant="w"))
    journal.save_slot(shadow)
    journal.delete_slot(shadow)
    events = [parse_event(entry.payload) for entry in journal.chain.kept()]
    assert [False, True, True] == [event.shadow for event in events]
    assert {"m": release.digest} == serving_after({}, events)
    journal.close()
