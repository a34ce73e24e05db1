"""A real agent process, and an operator who talks to it over a real broker."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgepack.bundle import open_bundle
from edgepack.trust import DESIRED_PAYLOAD_TYPE, GeneratedKeys, PrivateKey, dsse
from edgepack.wire.desired import Audience, BlobRef, Desired, DesiredModel, render_desired
from edgepack.wire.topics import CHUNK_BYTES, DEFAULT_PREFIX, DeviceTopics, blob_topic, chunk_count

AGENT = [sys.executable, "-m", "edgepack.agent.main"]
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Poll until `condition` gives something true; its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s")


class AgentProcess:
    """`edgepack-agent run` with an agent.toml of its own."""

    def __init__(self, folder: Path, keys: GeneratedKeys, broker_port: int | None, **changes: str):
        self.folder = folder
        self.config = folder / "agent.toml"
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        broker = f'[broker]\nurl = "mqtt://127.0.0.1:{broker_port}"\nkeepalive_s = 5\n'
        sections = {
            "top": "",
            "broker": broker if broker_port else "",
            "metrics": "[metrics]\ninterval_s = 0.3\nslow_s = 0.3\n",
            "probation": "[probation]\nrequests = 5\nseconds = 2\n",
            "limits": "[limits]\nself_test_compare_s = 0.05\n",
        } | changes
        self.config.write_text(
            f'device = "d1"\nstate = "state"\nroot = "{keys.root_json}"\n'
            + "".join(sections.values())
        )

    def start(self, *, stdin: int | None = None) -> "AgentProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*AGENT, "run", "-v", "--config", str(self.config)],
                stderr=log,
                stdout=log,
                stdin=stdin,
            )
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `edgepack-agent` command on the same configuration."""
        verb, *rest = arguments
        return subprocess.run(
            [*AGENT, verb, "--config", str(self.config), *rest],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def text(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Operator:
    """Deploys, asks, and remembers everything that the device says."""

    def __init__(
        self,
        port: int,
        keys: GeneratedKeys,
        *,
        protocol: int = mqtt.MQTTv311,
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        self.keys = keys
        self.topics = DeviceTopics(prefix, "d1")
        self.messages: list[tuple[str, bytes, bool]] = []
        self.protocol = protocol
        self.generation = 0
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = lambda _c, _u, m: self.messages.append(
            (m.topic, m.payload, m.retain)
        )
        self._client.on_connect = lambda *_: self._client.subscribe(f"{self.topics.base}/out/#", 1)
        self._client.reconnect_delay_set(0.1, 0.3)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_until(self._client.is_connected, "operator connects")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, response: str | None = None
    ) -> None:
        properties = None
        if response is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = response
            properties.CorrelationData = b"corr"
        wait_until(self._client.is_connected, "operator is connected")
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        info.wait_for_publish(10)

    def documents(self, topic: str) -> list[dict[str, Any]]:
        """Every JSON document that came on a topic, in order."""
        return [
            json.loads(payload)
            for name, payload, _ in list(self.messages)
            if name == topic and payload
        ]

    def upload(self, path: Path, *, damage: bool = False) -> DesiredModel:
        """Put a bundle's blobs on the broker, as `edgepack deploy` does."""
        bundle = open_bundle(path)
        for blob in bundle.blobs():
            data = bundle.read_blob(blob.digest)
            if damage and blob.size_bytes > 700:
                data = bytes([data[0] ^ 1]) + data[1:]
            for index in range(chunk_count(len(data))):
                chunk = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                self.publish(blob_topic(self.topics.prefix, blob.digest, index), chunk, retain=True)
        sizes = {blob.digest: blob.size_bytes for blob in bundle.blobs()}
        return DesiredModel(
            name=bundle.contract.name,
            version=bundle.contract.version,
            digest=bundle.digest,
            manifest_size_bytes=sizes[bundle.digest],
            archive_size_bytes=path.stat().st_size,
            signatures=tuple(
                BlobRef(digest=ref.digest, size_bytes=sizes[ref.digest])
                for ref in bundle.signatures
            ),
            sources=("mqtt:",),
        )

    def desire(
        self,
        *models: DesiredModel,
        generation: int | None = None,
        key: Path | None = None,
        device: str = "d1",
        lifetime_s: int = 3600,
    ) -> bytes:
        """Publish a signed desired state; the envelope."""
        self.generation = self.generation + 1 if generation is None else generation
        now_s = int(time.time())
        desired = Desired(
            audience=Audience(prefix=self.topics.prefix, device=device),
            generation=self.generation,
            issued_s=now_s - 7200,
            expires_s=now_s + lifetime_s,
            models=models,
        )
        signer = PrivateKey.load(key or self.keys.deploy_key)
        envelope = dsse.sign(render_desired(desired), DESIRED_PAYLOAD_TYPE, [signer])
        self.publish(self.topics.desired, envelope, retain=True)
        return envelope

    def reported(self) -> dict[str, Any]:
        documents = self.documents(self.topics.reported)
        return documents[-1] if documents else {}

    def model(self, name: str = "tiny") -> dict[str, Any]:
        models = self.reported().get("models", [])
        return next((model for model in models if model["name"] == name), {})

    def wait_phase(
        self, phase: str, *, digest: str | None = None, timeout_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Wait until the model's phase is this one (about this digest); the report."""

        def reached() -> dict[str, Any] | None:
            model = self.model()
            right = model.get("phase") == phase and digest in (None, model.get("target"))
            return model if right else None

        try:
            found: dict[str, Any] = wait_until(reached, phase, timeout_s)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; last report: {self.reported()}") from None
        return found

    def ask(
        self, request_id: str, features: dict[str, Any], *, model: str = "tiny"
    ) -> dict[str, Any]:
        """Send a flat request and wait for its answer on `out/prediction`."""
        self.publish(
            self.topics.infer(model), json.dumps({**features, "request_id": request_id}).encode()
        )
        return self.wait_answer(request_id, model=model)

    def wait_answer(
        self, request_id: str, *, model: str = "tiny", timeout_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        topic = self.topics.prediction(model)

        def answer() -> dict[str, Any] | None:
            return next(
                (doc for doc in self.documents(topic) if doc.get("request_id") == request_id), None
            )

        found: dict[str, Any] = wait_until(answer, f"answer to {request_id}", timeout_s)
        return found


@contextlib.contextmanager
def running(agent: AgentProcess) -> Iterator[AgentProcess]:
    """An agent that is killed in the end, whatever happens."""
    try:
        yield agent.start()
    finally:
        agent.kill()


def http_port(agent: AgentProcess) -> int:
    """The port that an agent with `listen = "127.0.0.1:0"` found; waits for it."""
    word = "http.listening listen=127.0.0.1:"
    text = wait_until(lambda: word in agent.text() and agent.text(), "HTTP")
    return int(str(text).rpartition(word)[2].split()[0])
