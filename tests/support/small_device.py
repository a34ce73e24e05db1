"""A device that has one version and is told to install the next: the same install, many times.

The agent is the real one, wired as always, without a broker: its desired state is handed in, its
bundles come from files. It runs in forked processes, so that it may be killed anywhere.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from support.forked import ForkingExec, in_fork, inline_exec
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.agent.compose import Agent
from edgepack.agent.config import read_config
from edgepack.agent.errors import DecisionError
from edgepack.agent.install.slot import shadow_key
from edgepack.bundle import Bundle, open_bundle
from edgepack.runtime.contest.values import Candidate, ContestLimits, ContestReport
from edgepack.trust import DESIRED_PAYLOAD_TYPE, PrivateKey, dsse, keygen
from edgepack.wire.desired import Audience, Desired, DesiredModel, Mode, render_desired
from edgepack.wire.topics import DEFAULT_PREFIX

NAME = "tiny"
X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)
PROBATION_S = 0.02
DEADLINE_S = 60.0
FINAL = ("confirmed", "rejected", "rolled_back")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a device showed after a start.

    Attributes:
        first: The version that answered right as soon as the device had started, or "".
        last: The version that answered right in the end.
        confirmed: The version that the slot calls confirmed in the end, or "".
        phase, reason: What the slot said in the end.
        log: What was logged at WARNING and above.
    """

    first: str
    last: str
    confirmed: str
    phase: str
    reason: str
    log: str


class SmallDevice:
    """Bundles 1.0.0 and 1.1.0, the desired states that ask for them, and a place for state folders.

    Args:
        folder: For bundles and keys.
        states: For state folders; a file system in memory makes thousands of runs quick.
    """

    def __init__(self, folder: Path, states: Path) -> None:
        warm_up()
        self.folder, self.states = folder, states
        self.keys = keygen(folder / "keys")
        self._deploy = PrivateKey.load(self.keys.deploy_key)
        release = PrivateKey.load(self.keys.release_key)
        self.bundles = {
            version: write_tiny_bundle(folder, version=version, seed=seed, key=release)
            for seed, version in enumerate(("1.0.0", "1.1.0"))
        }
        self.digests = {version: open_bundle(path).digest for version, path in self.bundles.items()}
        self.expected = {
            version: tiny_model(seed).predict(X)["probabilities"]
            for seed, version in enumerate(self.bundles)
        }
        self.envelopes = {
            version: self._envelope(version, generation)
            for generation, version in enumerate(self.bundles, 1)
        }
        self.envelopes["back"] = self._envelope("1.0.0", 3, sources=())
        self.envelopes["none"] = self._envelope(None, 3)
        offer, shadow = (self._beside(mode) for mode in (Mode.OFFER, Mode.SHADOW))
        self.envelopes |= {"offer": offer, "shadow": shadow, "undo": self.envelopes["1.1.0"]}
        self._targets = {
            **self.digests,
            "back": self.digests["1.0.0"],
            "undo": self.digests["1.0.0"],
            "offer": self.digests["1.1.0"],
            "shadow": self.digests["1.1.0"],
        }
        self.probation_s = PROBATION_S
        self.die_at = ""
        self.final: tuple[str, ...] = FINAL
        # Called with the phases of the slot that changes, and with "decide" before a decision.
        self.passed: Callable[[str], None] = lambda _: None
        # Called again and again while an install is under way, with a way to ask what answers.
        self.meanwhile: Callable[[Callable[[], str], str], None] = lambda *_: None
        # Called first in the agent's children; None: they are no processes of their own.
        self.in_child: Callable[[str], None] | None = None

    def config(self, state: Path) -> Path:
        """Write an agent.toml for a state folder; not where the faulty disk is."""
        path = self.folder / f"{state.name}.toml"
        path.write_text(
            f'device = "d1"\nstate = "{state}"\nroot = "{self.keys.root_json}"\n'
            f"[probation]\nrequests = 1000000\nseconds = {self.probation_s}\n"
        )
        return path

    def make(self, name: str) -> Path:
        """A new state folder in which 1.0.0 is confirmed."""
        state = self.states / name
        seen = self.restart(state, "1.0.0")
        assert ("1.0.0", "confirmed") == (seen.last, seen.phase), seen
        return state

    def copy(self, state: Path | None, name: str) -> Path:
        """A state folder of its own, like another; without one it is not there yet."""
        target = self.states / name
        shutil.rmtree(target, ignore_errors=True)
        if state is not None:
            shutil.copytree(state, target, ignore=shutil.ignore_patterns("*.sock"))
        return target

    def install(self, state: Path, version: str, *, before: Callable[[], None]) -> int:
        """Start the device and let it install, in a process of its own; its exit status.

        Args:
            state: The state folder.
            version: What the desired state asks for: a version, "back" or "none"; "offer", which is
                taken at once; "undo", where a person goes back from 1.1.0; "shadow".
            before: Called in that process first; may arrange its death.
        """

        def work() -> str:
            before()
            return self._run(state, version)

        code, answer = in_fork(work)
        assert code <= 0, answer
        return code

    def restart(self, state: Path, version: str | None) -> Seen:
        """Start the device (again) and let it go on to `version`; None only starts it."""
        code, answer = in_fork(lambda: self._run(state, version))
        assert 0 == code, answer
        return Seen(**json.loads(answer))

    def _run(self, state: Path, version: str | None) -> str:
        import edgepack.agent.install.worker as worker
        import edgepack.agent.serve.shadows as shadows
        import edgepack.runtime.contest.contest as contest

        contest.run_contest = _first_variant
        shadows.Shadow = _Silent
        start = ForkingExec(self.in_child) if self.in_child else inline_exec
        worker.asyncio = _Asyncio(asyncio, create_subprocess_exec=start)
        return json.dumps(asdict(asyncio.run(self._live(state, version))))

    async def _live(self, state: Path, version: str | None) -> Seen:
        lines = _Lines()
        agent = Agent(read_config(self.config(state)))
        told = agent._publisher.slot_changed
        agent._publisher.slot_changed = lambda slot: (self.passed(slot.phase.value), told(slot))
        try:
            await agent.start()
            first = self._answering(agent)
            if version is not None:
                installing = agent.installing()
                task = asyncio.create_task(installing.run())
                installing.desires.deliver(self.envelopes[version])
                await self._decide(agent, version)
                await self._settled(agent, version, task, lines)
                task.cancel()
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(task, return_exceptions=True)
            slot = agent._slots.get(NAME)
            return Seen(
                first=first,
                last=self._answering(agent),
                confirmed=slot.confirmed.release.version if slot.confirmed else "",
                phase=slot.phase.value,
                reason=slot.reason,
                log=lines.text(),
            )
        finally:
            agent.close()

    async def _settled(
        self, agent: Agent, version: str, task: asyncio.Task[None], lines: "_Lines"
    ) -> None:
        digest = self._targets.get(version)
        key = shadow_key(NAME) if version == "shadow" else NAME
        final = ("shadowing", "rejected") if version == "shadow" else self.final
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.meanwhile(lambda: self._answering(agent), lines.text())
            slot = agent._slots.by_key.get(key)
            if slot is None or slot.target != digest:
                if slot is digest is None:
                    return
            elif slot.phase == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            elif slot.phase in final:
                return
            assert not task.done(), task.exception()
            await asyncio.sleep(0.001)
        raise AssertionError(f"{version} is not settled: {agent._slots.by_key}")

    async def _decide(self, agent: Agent, version: str) -> None:
        """What a person does, who does it again where it was done before a kill."""
        if version not in ("offer", "undo"):
            return
        async with asyncio.timeout(DEADLINE_S):
            while agent._slots.generation < (3 if version == "offer" else 2):
                await asyncio.sleep(0.001)
        self.passed("decide")
        try:
            if version == "undo":
                await agent.decisions.local()["rollback"]({"model": NAME})
            else:
                wanted = {"model": NAME, "digest": self._targets["offer"]}
                await agent.decisions.remote()["install"](json.dumps(wanted).encode())
        except DecisionError as exc:
            assert exc.reason in ("already_rolled_back", "already_active"), exc

    def _answering(self, agent: Agent) -> str:
        served = agent._registry.get(NAME)
        if served is None:
            return ""
        answer = served.predict({"x": X})["probabilities"]
        for version, expected in self.expected.items():
            if np.allclose(expected, answer, atol=1e-5):
                assert version == served.installed.release.version
                return version
        raise AssertionError(f"a wrong answer: {answer}")

    def _envelope(
        self, version: str | None, generation: int, sources: tuple[str, ...] | None = None
    ) -> bytes:
        return self._signed(generation, () if version is None else (self._model(version, sources),))

    def _beside(self, mode: Mode) -> bytes:
        """1.0.0 is installed, and 1.1.0 is offered or its challenger."""
        beside = replace(self._model("1.1.0", None), mode=mode)
        return self._signed(3, (self._model("1.0.0", None), beside))

    def _signed(self, generation: int, models: tuple[DesiredModel, ...]) -> bytes:
        now_s = int(time.time())
        desired = Desired(
            audience=Audience(prefix=DEFAULT_PREFIX, device="d1"),
            generation=generation,
            issued_s=now_s,
            expires_s=now_s + 86_400,
            models=models,
        )
        return dsse.sign(render_desired(desired), DESIRED_PAYLOAD_TYPE, [self._deploy])

    def _model(self, version: str, sources: tuple[str, ...] | None) -> DesiredModel:
        path = self.bundles[version]
        return DesiredModel(
            name=NAME,
            version=version,
            digest=self.digests[version],
            archive_size_bytes=path.stat().st_size,
            sources=(path.as_uri(),) if sources is None else sources,
        )


def _first_variant(bundle: Bundle, _: ContestLimits) -> ContestReport:
    """The self-test's answer without the test, which takes a second and writes nothing."""
    variant = bundle.contract.variants[0]
    chosen = Candidate(variant=variant.name, size_bytes=variant.size_bytes)
    return ContestReport(chosen=chosen, figures={"rows": 64.0}, tried=())


class _Silent:
    """A challenger without its process, which writes nothing."""

    requests = dropped = errors = 0

    def __init__(self, installed, *_, **__):
        self.installed = installed

    async def start(self):
        """It runs."""

    end = start

    def stop(self):
        """It ended."""


class _Asyncio:
    """A module with some names replaced."""

    def __init__(self, module, **changed):
        self.__dict__.update(changed)
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


class _Lines(logging.Handler):
    """Remembers warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        logging.getLogger("edgepack").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def text(self) -> str:
        return "\n".join(self._lines)


def warm_up() -> None:
    """Import here what the forked processes would each import anew."""
    import onnxruntime  # noqa: F401

    import edgepack.agent.control
    import edgepack.agent.install.child
    import edgepack.agent.install.installing
    import edgepack.monitor.drift
    import edgepack.monitor.reference
    import edgepack.runtime.engines.onnxruntime
    import edgepack.runtime.selftest  # noqa: F401
