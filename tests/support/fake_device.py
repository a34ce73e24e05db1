"""A device that takes part in the conversation over a broker and installs nothing."""

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from edgepack.fleet.connection import connect, parse_broker_url
from edgepack.trust import DESIRED_PAYLOAD_TYPE, dsse
from edgepack.wire import (
    Desired,
    Info,
    Release,
    Reported,
    ReportedModel,
    parse_desired,
    render_info,
    render_reported,
)
from edgepack.wire.topics import OFFLINE, ONLINE, DeviceTopics

PHASES = ("fetching", "verifying", "staging", "testing", "switching", "probation")


@dataclass
class FakeDevice:
    """`async with FakeDevice(url, prefix, "dev-1") as device:`.

    Attributes:
        rejects: Digest → reason; these end in `rejected`.
        refuses: If set, no desired state is followed, for this reason.
        seen: Desired states that came, unverified.
    """

    url: str
    prefix: str
    device: str = "dev-1"
    tags: dict[str, str] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    refuses: str = ""
    reported: Reported | None = None
    seen: list[Desired] = field(default_factory=list)

    async def __aenter__(self):
        self.reported = self.reported or Reported(device=self.device, generation=0)
        self._ready = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        async with asyncio.timeout(5):
            await self._ready.wait()
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self):
        topics = DeviceTopics(self.prefix, self.device)
        async with connect(parse_broker_url(self.url)) as client:
            self._client, self._topics = client, topics
            info = Info(device=self.device, agent_version="0", instance="x", tags=self.tags)
            await client.publish(topics.info, render_info(info), qos=1, retain=True)
            await client.publish(topics.status, ONLINE, qos=1, retain=True)
            await self._say()
            await client.subscribe(topics.desired, qos=1)
            self._ready.set()
            try:
                async for message in client.messages:
                    if message.payload:
                        await self._follow(bytes(message.payload))
            finally:
                await client.publish(topics.status, OFFLINE, qos=1, retain=True)

    async def _follow(self, envelope):
        desired = parse_desired(dsse.unverified_payload(envelope, DESIRED_PAYLOAD_TYPE))
        self.seen.append(desired)
        if self.refuses:
            self.reported = replace(self.reported, refused=self.refuses)
            await self._say()
            return
        if desired.generation <= self.reported.generation:
            return
        listed = {model.name for model in desired.models}
        kept = tuple(model for model in self.reported.models if model.name in listed)
        self.reported = replace(self.reported, generation=desired.generation, models=kept)
        await self._say()
        for model in desired.models:
            await self._install(model)

    async def _install(self, wanted):
        old = {model.name: model for model in self.reported.models}
        was = old.get(wanted.name, ReportedModel(name=wanted.name, phase="idle"))
        if was.active is not None and was.active.digest == wanted.digest:
            return
        for phase in PHASES:
            if phase == "switching" and wanted.digest in self.rejects:
                reason = self.rejects[wanted.digest]
                was = replace(was, phase="rejected", reason=reason, detail="the fake says so")
                await self._put(was)
                return
            was = replace(was, phase=phase, target=wanted.digest, reason="", detail="")
            await self._put(was)
        release = Release(digest=wanted.digest, version=wanted.version, sequence=1)
        was = replace(was, previous=was.active, active=release, confirmed=release)
        await self._put(replace(was, phase="confirmed"))

    async def _put(self, model):
        others = tuple(one for one in self.reported.models if one.name != model.name)
        self.reported = replace(self.reported, models=(*others, model))
        await self._say()
        await asyncio.sleep(0.01)

    async def _say(self):
        self.reported = replace(self.reported, ts=time.time_ns() // 1_000_000)
        payload = render_reported(self.reported)
        await self._client.publish(self._topics.reported, payload, qos=1, retain=True)


@contextmanager
def in_background(device):
    """Run a fake device in a thread, for tests of commands."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve():
        async with device:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10), "the fake device did not connect"
    try:
        yield device
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
