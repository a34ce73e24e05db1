"""Trouble with the disk, with what is remembered, and with those who ask too much."""

import asyncio
import math
import time

import numpy as np
import pytest
from support.agent_process import AgentProcess
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.compose import Agent
from edgepack.agent.config import AgentConfig, read_config
from edgepack.agent.errors import StoreError
from edgepack.agent.install import desires as desires_module
from edgepack.agent.install.clock import DeviceClock
from edgepack.agent.install.desires import Desires
from edgepack.agent.install.findings import VerifiedDesired
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.slot import Installed
from edgepack.agent.link import Incoming
from edgepack.agent.report.outbox import Outbox, Rank
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.mqtt import RequestServer
from edgepack.agent.serve.requests import Answer
from edgepack.agent.serve.served import ServedModel
from edgepack.bundle.contract import Contract, Task
from edgepack.monitor import DriftDetector
from edgepack.monitor.reference import build_reference
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.desired import Audience, Desired, render_desired
from edgepack.wire.infer import Truth
from edgepack.wire.messages import Release
from edgepack.wire.topics import DeviceTopics

TOPICS = DeviceTopics("edgepack/v1", "d1")


def test_a_full_disk_does_not_keep_a_device_from_serving(tmp_path, monkeypatch):
    """What cannot be remembered at the start is not worth not answering."""
    keys = keygen(tmp_path / "keys")
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    process = AgentProcess(tmp_path / "device", keys, None)
    assert 0 == process.command("install", str(bundle)).returncode
    journal = Journal(tmp_path / "device/state/agent.db")
    journal.set_meta("running", b"1")  # an unclean exit on probation: there is much to remember
    journal.close()

    def full(*_):
        raise StoreError("disk full")

    async def main():
        agent = Agent(read_config(process.config))
        monkeypatch.setattr(Journal, "set_metas", full)
        monkeypatch.setattr(Journal, "save_slot", full)
        await agent.start()
        answers = agent._registry.get("tiny") is not None
        agent.close()
        return answers

    assert asyncio.run(main())


def test_a_damaged_outbox_is_begun_anew(tmp_path):
    """Lost reports are no reason not to start."""
    path = tmp_path / "outbox.db"
    path.write_bytes(b"no database" * 1000)
    outbox = Outbox(path, max_rows=10)
    outbox.put("t", b"{}", rank=Rank.EVENT)
    assert ["t"] == [report.topic for report in outbox.backlog(10)]
    outbox.close()


class FlakyWorker:
    """The disk, or the memory for a child process, is missing once."""

    def __init__(self, payload):
        self.payload = payload
        self.calls = 0

    async def verify_desired(self, envelope):
        self.calls += 1
        if self.calls == 1:
            raise StoreError("a child process cannot be started")
        return VerifiedDesired(payload=self.payload, signers=("ab",))


def make_desires(tmp_path, worker, accepted, refused):
    journal = Journal(tmp_path / "agent.db")
    return Desires(
        AgentConfig(root="r", device="d1"),
        journal,
        worker,
        DeviceClock(journal),
        accepted=accepted.append,
        unchanged=lambda: None,
        abandoned=lambda: None,
        refused=refused.append,
    )


def test_a_desired_state_is_not_lost_for_a_moment_without_memory(tmp_path, monkeypatch):
    """The broker does not send it again: it is judged again a little later."""
    monkeypatch.setattr(desires_module, "_RETRY_S", 0.02)
    now_s = int(time.time())
    desired = Desired(
        audience=Audience(prefix="edgepack/v1", device="d1"),
        generation=3,
        issued_s=now_s,
        expires_s=now_s + 60,
    )
    accepted, refused = [], []

    async def main():
        made = make_desires(tmp_path, FlakyWorker(render_desired(desired)), accepted, refused)
        made.deliver(b"envelope")
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(5):
            while not accepted:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert [desired] == accepted
    assert ["desired state: a child process cannot be started", ""] == refused


def test_a_damaged_memory_of_the_desired_state_stops_nothing(tmp_path):
    """It is said, and the next deployment mends it; the generation still bars a replay."""
    journal = Journal(tmp_path / "agent.db")
    journal.set_metas({"desired_envelope": b"rubbish", "desired_generation": b"7"})
    journal.close()
    accepted, refused = [], []
    made = make_desires(tmp_path, FlakyWorker(b""), accepted, refused)
    made.restore()
    assert ([], 7) == (accepted, made.generation)
    assert "damaged" in refused[0]


class Silent:
    """A broker that acknowledges nothing."""

    async def publish(self, topic, payload, *, correlation=None):
        await asyncio.sleep(60)


class NoModels:
    def get(self, name):
        """No model answers."""


def test_requests_that_nobody_waits_for_do_not_pile_up(caplog):
    """When even refusals cannot be said, what comes on top is dropped and the log says so once."""

    async def main():
        inference = Inference(NoModels(), pending=10, drifted=lambda *_: None)
        server = RequestServer(inference, TOPICS, pending=10)
        server.link = Silent()
        for _ in range(1000):
            server.infer(Incoming(TOPICS.infer("m"), b"{}", False, None, None))
        return len(server._tasks)

    assert 20 == asyncio.run(main())
    assert 1 == caplog.text.count("request.dropped reason=flood")


def test_inputs_of_another_size_than_the_reference_only_end_the_watch_for_drift(caplog):
    """A contract may take images of any size; requests go on being answered."""

    class AnySize:
        contract = Contract(
            name="m",
            version="1.0.0",
            task=Task.GENERIC,
            inputs=(),
            outputs=(),
            variants=(),
            golden="g",
        )

    release = Release(digest="sha256:" + "a" * 64, version="1.0.0", sequence=1)
    served = ServedModel(Installed(release=release, variant="v"), AnySize())
    served.watch_drift(DriftDetector(build_reference({"x": np.zeros((9, 4, 4))}), window=2))

    assert served.observe({"x": np.zeros((1, 4, 4))}) is None
    assert served.observe({"x": np.zeros((1, 2, 2))}) is None
    assert served.observe({"x": np.zeros((1, 4, 4))}) is None
    assert 1 == caplog.text.count("drift.stopped model=m")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_has_no_error(value, monkeypatch):
    """A truth for it is not known, and whoever sends it does not end the agent."""

    class Regressor:
        contract = Contract(
            name="m",
            version="1.0.0",
            task=Task.REGRESSION,
            inputs=(),
            outputs=(),
            variants=(),
            golden="g",
        )

    answer = Answer(None, None, value, {})
    monkeypatch.setattr("edgepack.agent.serve.served.to_answer", lambda *_: answer)
    release = Release(digest="sha256:" + "a" * 64, version="1.0.0", sequence=1)
    served = ServedModel(Installed(release=release, variant="v"), Regressor())
    served.answered("r1", {}, {})
    assert not served.truth(Truth("r1", None, 1.0))


def test_a_desired_state_that_comes_twice_is_no_replay(tmp_path):
    """The second copy waited while the first was judged: nothing is refused."""
    now_s = int(time.time())
    desired = Desired(
        audience=Audience(prefix="edgepack/v1", device="d1"),
        generation=3,
        issued_s=now_s,
        expires_s=now_s + 60,
    )
    accepted, refused = [], []

    async def main():
        worker = FlakyWorker(render_desired(desired))
        worker.calls = 1  # it is well
        made = make_desires(tmp_path, worker, accepted, refused)
        made.deliver(b"envelope")
        made.deliver(b"envelope")
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(5):
            while not accepted or made._deliveries.qsize():
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert [desired] == accepted
    assert [""] == refused
