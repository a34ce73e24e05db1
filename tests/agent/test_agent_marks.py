"""An engine that takes the agent down is known by its mark; the models beside it stay."""

import json
import subprocess
import sys

import pytest
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.brokers import Mosquitto
from support.brokers import running as running_broker
from support.tiny_bundle import FEATURES, write_tiny_bundle

from edgepack.agent.serve import marks
from edgepack.agent.serve.marks import EngineMarks
from edgepack.trust import PrivateKey, keygen

ROW = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))
LONG = "[probation]\nrequests = 100000\nseconds = 3600\n"
# An agent in which the engine of the model `bad` takes the process down.
_CRASHING = """
import signal, sys
from edgepack.runtime.model import Model
predict = Model.predict
def crash(self, inputs):
    if self.contract.name == "bad":
        signal.raise_signal(signal.SIGSEGV)  # in this thread, as a wrong address would
    return predict(self, inputs)
Model.predict = crash
from edgepack.agent.main import main
sys.exit(main())
"""


class CrashingAgent(AgentProcess):
    """`edgepack-agent run` with an engine that crashes."""

    def start(self):
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", _CRASHING, "run", "-v", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        return self


def test_what_is_at_work_is_found_by_the_next_start(tmp_path):
    """Until it is done; several calls of one model are one."""
    path = tmp_path / "marks"
    first = EngineMarks(path)
    assert frozenset() == first.left
    with first.of("a"), first.of("b"), first.of("b"):
        assert {"a", "b"} == marks._left(path, marks._boot_id())
    with first.of("b"):
        assert {"b"} == marks._left(path, marks._boot_id())
    assert frozenset() == EngineMarks(path).left


@pytest.mark.parametrize("content", [b"", b"rubbish", bytes(9000), b"\xff" * 9000])
def test_what_makes_no_sense_accuses_nobody(tmp_path, content):
    """Nor does what another start of the machine left."""
    path = tmp_path / "marks"
    path.write_bytes(content)
    assert frozenset() == EngineMarks(path).left


def test_another_start_of_the_machine_accuses_nobody(tmp_path, monkeypatch):
    """A power cut is no engine's fault."""
    made = EngineMarks(tmp_path / "marks")
    with made.of("a"):
        monkeypatch.setattr(marks, "_boot_id", lambda: b"another")
        assert frozenset() == EngineMarks(tmp_path / "marks").left


def test_without_a_place_there_are_no_marks(tmp_path):
    """A disk that does not take the file is no reason not to serve."""
    assert EngineMarks(tmp_path / "no" / "folder").of("a") is None


def test_more_models_than_places(tmp_path):
    """Those that come later have none."""
    made = EngineMarks(tmp_path / "marks")
    assert [True] * 31 + [False] == [made.of(f"m{i}") is not None for i in range(32)]
    assert made.of("m3") is made.of("m3")


def test_an_engine_that_crashes_takes_only_its_own_model(tmp_path):
    """Two models are on probation; the one that kills the agent twice goes, the other stays."""
    keys = keygen(tmp_path / "keys")
    release = PrivateKey.load(keys.release_key)
    with running_broker(Mosquitto(tmp_path)) as broker:
        operator = Operator(broker.port, keys)
        agent = CrashingAgent(tmp_path / "device", keys, broker.port, probation=LONG)
        try:
            with running(agent):
                models = [
                    operator.upload(write_tiny_bundle(tmp_path, name=name, key=release))
                    for name in ("bad", "good")
                ]
                operator.desire(*models)
                for name in ("bad", "good"):
                    wait_until(
                        lambda name=name: operator.model(name).get("phase") == "probation", name, 60
                    )
                for crash in (1, 2):
                    payload = json.dumps({**ROW, "request_id": f"crash-{crash}"}).encode()
                    operator.publish(operator.topics.infer("bad"), payload)
                    agent.process.wait(30)
                    agent.start()
                    connected = crash + 1
                    wait_until(
                        lambda n=connected: agent.text().count("broker.connected") == n, "back"
                    )
                wait_until(lambda: operator.model("bad").get("phase") == "rolled_back", "gone")
                assert "unclean_exits" == operator.model("bad")["reason"]
                assert "probation" == operator.model("good")["phase"]
                assert "1.0.0" == operator.ask("good-1", ROW, model="good")["model_version"]
        finally:
            operator.close()
