"""The installer with everything round it faked, for tests of what it decides."""

import asyncio
import contextlib
import time

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import RejectedError
from edgepack.agent.install.apply import Installer
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.fetch import Fetched
from edgepack.agent.install.findings import Chosen, Verified
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.judge import Figures
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import Phase
from edgepack.wire.desired import Audience, Desired, DesiredModel
from edgepack.wire.messages import Release

A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")
PROBATION = ProbationConfig(requests=2, seconds=60, max_error_rate=0.01)


def model(digest, name="m", **fields):
    return DesiredModel(name=name, version="1.0.0", digest=digest, sources=("mqtt:",), **fields)


def desired(generation, *models):
    return Desired(
        audience=Audience(prefix="p", device="d"),
        generation=generation,
        issued_s=0,
        expires_s=int(time.time()) + 1000,
        models=models,
    )


class Answers:
    """Counters of a model that answers."""

    def __init__(self):
        self.now = Figures()
        self.event = asyncio.Event()

    def count(self, requests, failures):
        self.now = Figures(requests=requests, failures=failures)
        self.event.set()

    def figures(self):
        return self.now

    async def changed(self):
        await self.event.wait()
        self.event.clear()


class Challengers:
    """Remembers which challengers run; `fails` names those that do not load."""

    def __init__(self, world):
        self.world = world

    async def cast(self, slot):
        if slot.active.digest in self.world.misfits:
            raise RejectedError("shadow_failed", "it does not load")
        self.world.shadows[slot.name] = slot.active.digest

    def stop(self, name):
        self.world.shadows.pop(name, None)


class World:
    """Serving, announcer, fetcher and worker in one; `on_fetch` and `on_verify` may be changed."""

    def __init__(self, tmp_path):
        self.fetched = []
        self.served = {}
        self.shadows = {}
        self.misfits = set()
        self.answers = {}
        self.blobs = BlobStore(tmp_path)
        self.journal = Journal(tmp_path / "agent.db")
        self.limits = PROBATION
        self.slots = self.new_slots()
        self.on_fetch = self.on_verify = self.nothing

    def new_slots(self):
        """The slots as a new start of the agent reads them."""
        slots = Slots(self.journal, self.blobs, self)
        slots.collect = lambda: None
        return slots

    def installer(self):
        return Installer(
            slots=self.slots,
            journal=self.journal,
            blobs=self.blobs,
            fetcher=self,
            worker=self,
            serving=self,
            challengers=Challengers(self),
            announcer=self,
            probation=self.limits,
        )

    async def nothing(self, _):
        """All is well."""

    async def check_file(self, path):
        """Every file can be installed here."""

    async def fetch(self, wanted):
        self.fetched.append(wanted.digest)
        staging = self.blobs.staging_for(wanted.digest)
        await self.on_fetch(wanted)
        return Fetched(staging=staging, signatures=())

    async def verify_layout(self, layout, *, digest, signatures, name, floors):
        await self.on_verify(digest)
        return self.verified(digest, name)

    async def verify_file(self, path, staging, *, digest, name, floors):
        return self.verified(str(path), "m")

    async def self_test(self, layout, stored):
        return Chosen(variant="v", figures={}, failed=())

    @staticmethod
    def verified(digest, name):
        stored = Stored(digest=digest, name=name, version="1", sequence=1, signatures=())
        return Verified(stored=stored, blobs=())

    async def serve(self, slot, layout):
        self.served[slot.name] = slot.active.digest
        self.answers[slot.name] = Answers()

    def stop(self, name):
        self.served.pop(name, None)

    def counters(self, name):
        return self.answers.get(name)

    def slot_changed(self, slot):
        """Nobody listens."""

    slot_removed = refused = slot_changed

    def install(self, digest, *, confirmed, name="m"):
        """Have a version installed already."""
        release = Release(digest=digest, version="0.9.0", sequence=1)
        installed = Installed(release=release, variant="v", proven=confirmed)
        self.slots.save(
            Slot(
                name=name,
                managed=True,
                phase=Phase.CONFIRMED if confirmed else Phase.PROBATION,
                target=digest,
                active=installed,
                confirmed=installed if confirmed else None,
            )
        )
        self.served[name] = digest
        self.answers[name] = Answers()


@contextlib.asynccontextmanager
async def at_work(world):
    installer = world.installer()
    installer.start()
    task = asyncio.create_task(installer.run())
    try:
        yield installer
        assert not task.done(), task.exception()
    finally:
        installer.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def phase(world, name="m"):
    return world.slots.get(name).phase
