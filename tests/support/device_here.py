"""The whole agent in this process, without a broker: what one would bring is handed to it.

Its child processes, journal and store are the real ones.
"""

import asyncio
import contextlib
import time
from dataclasses import replace

from edgepack.agent.compose import Agent
from edgepack.agent.config import read_config
from edgepack.agent.install.clock import DeviceClock
from edgepack.bundle import open_bundle
from edgepack.trust import DEPLOY, DESIRED_PAYLOAD_TYPE, dsse
from edgepack.wire.audit import parse_event
from edgepack.wire.desired import Audience, BlobRef, Desired, DesiredModel, render_desired
from edgepack.wire.topics import root_topic

PREFIX = "edgepack/v1"


def wish(path, **changes):
    """The entry of a desired state for a bundle file."""
    bundle = open_bundle(path)
    model = DesiredModel(
        name=bundle.contract.name,
        version=bundle.contract.version,
        digest=bundle.digest,
        manifest_size_bytes=bundle.manifest_blob.size_bytes,
        archive_size_bytes=bundle.size_bytes,
        signatures=tuple(
            BlobRef(digest=ref.manifest.digest, size_bytes=ref.manifest.size_bytes)
            for ref in bundle.signatures
        ),
        sources=(path.as_uri(),),
    )
    return replace(model, **changes)


def desired(*models, generation=1, device="d1", prefix=PREFIX, lifetime_s=3600, group=None):
    now_s = int(time.time())
    audience = Audience(prefix=prefix, device=None if group else device, group=group)
    return Desired(
        audience=audience,
        generation=generation,
        issued_s=now_s - 7200,
        expires_s=now_s + lifetime_s,
        models=models,
    )


def signed(state, *keys):
    return dsse.sign(render_desired(state), DESIRED_PAYLOAD_TYPE, keys)


class Device:
    """An agent without a broker; `wall` is its clock, in seconds since 1970."""

    def __init__(self, folder, root, device="d1", wall=time.time):
        folder.mkdir(exist_ok=True)
        (folder / "root.json").write_bytes(root)
        (folder / "agent.toml").write_text(
            f'device = "{device}"\nstate = "state"\nroot = "root.json"\n'
            "[probation]\nrequests = 5\nseconds = 0.1\n"
        )
        self.staging = folder / "state/staging"
        self._agent = Agent(read_config(folder / "agent.toml"))
        self._agent._clock = DeviceClock(self._agent._journal, wall)

    async def __aenter__(self):
        await self._agent.start()
        self._installing = self._agent.installing()
        self._task = asyncio.create_task(self._installing.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._agent.close()

    def deliver(self, envelope):
        self._installing.desires.deliver(envelope)

    def deliver_root(self, version, data):
        self._installing.roots.deliver(root_topic(PREFIX, version), data)

    @property
    def events(self):
        return [parse_event(entry.payload) for entry in self._agent._journal.chain.kept()]

    @property
    def generation(self):
        return self._installing.desires.generation

    @property
    def turned_down(self):
        return self._installing.desires._turned_down

    @property
    def refused(self):
        return self._agent._publisher._refused

    @property
    def notices(self):
        return self._agent._publisher._notices

    @property
    def root_version(self):
        return self._installing.roots.version

    @property
    def slot(self):
        return self._agent._slots.by_key.get("tiny")

    async def until(self, condition, timeout_s=30):
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert not self._task.done(), self._task.exception()
                await asyncio.sleep(0.02)

    async def refuses(self, text):
        await self.until(lambda: text in self.refused)

    async def phase(self, phase, digest=None):
        def reached():
            slot = self.slot
            return slot and slot.phase.value == phase and digest in (None, slot.target)

        await self.until(reached)
        return self.slot

    async def confirms(self, model, authority, generation=1):
        self.deliver(signed(desired(model, generation=generation), authority.keys[DEPLOY]))
        return await self.phase("confirmed", model.digest)
