"""Garbage of change: what no slot needs goes, what one of several models shares stays."""

import shutil
from dataclasses import replace

import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import Phase
from edgepack.bundle import open_bundle, open_layout
from edgepack.wire.messages import Release


class Silent:
    """Nobody listens."""

    def slot_changed(self, slot):
        """Nothing."""

    slot_removed = refused = slot_changed


class Device:
    """A store with bundles in it."""

    def __init__(self, folder):
        self.folder = folder
        self.journal = Journal(folder / "agent.db")
        self.blobs = BlobStore(folder)
        self.slots = Slots(self.journal, self.blobs, Silent())

    def bring(self, name, version, seed):
        """A bundle comes into the store; two of one seed share their weights."""
        bundle = open_bundle(write_tiny_bundle(self.folder, name=name, version=version, seed=seed))
        for blob in bundle.blobs():
            data = bundle.read_blob(blob.digest)
            (self.blobs.folder / blob.hex).write_bytes(data)
        stored = Stored(digest=bundle.digest, name=name, version=version, sequence=1, signatures=())
        self.journal.save_bundle(stored)
        release = Release(digest=bundle.digest, version=version, sequence=1)
        return Installed(release=release, variant="onnx-fp32", proven=True)

    def is_whole(self, installed):
        try:
            bundle = open_layout(self.blobs.layout, installed.digest)
            return all(bundle.read_blob(blob.digest) for blob in bundle.blobs())
        except Exception:
            return False

    def blobs_on_disk(self):
        return {path.name for path in self.blobs.folder.iterdir()}


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def confirmed(name, installed):
    return Slot(name=name, phase=Phase.CONFIRMED, active=installed, confirmed=installed)


def test_a_model_that_goes_leaves_what_another_one_shares(device):
    """Removing one of two models with the same weights keeps the other whole."""
    one, other = device.bring("one", "1.0.0", 3), device.bring("other", "1.0.0", 3)
    device.slots.save(confirmed("one", one))
    device.slots.save(confirmed("other", other))
    device.slots.remove("one")
    assert (False, True) == (device.is_whole(one), device.is_whole(other))
    assert {other.digest} == set(device.journal.bundles())


def test_old_versions_go_and_the_confirmed_one_never(device):
    """Through upgrades, a rollback and a challenger: what is confirmed is whole at every step."""
    first, second, third = (device.bring("m", f"1.{n}.0", n) for n in range(3))
    slot = confirmed("m", first)
    device.slots.save(slot)
    with device.slots.holding(second.digest), device.slots.holding(third.digest):
        device.slots.collect()
    assert all(map(device.is_whole, (first, second, third)))
    slot = replace(slot, active=second, previous=first, phase=Phase.PROBATION)
    device.slots.save(slot)
    device.slots.save(Slot(name="m", shadow=True, phase=Phase.SHADOWING, active=third))
    device.slots.collect()
    assert all(map(device.is_whole, (first, second, third)))
    device.slots.save(slot.roll_back("probation_errors", "", 1))
    device.slots.remove("m~shadow")
    assert [True, False, False] == [device.is_whole(one) for one in (first, second, third)]
    needed = {blob.hex for blob in open_layout(device.blobs.layout, first.digest).blobs()}
    assert needed == device.blobs_on_disk()


def test_what_cannot_be_read_is_no_reason_to_delete(device):
    """A damaged manifest of one bundle keeps everything, rather than too little."""
    one, other = device.bring("one", "1.0.0", 3), device.bring("other", "1.0.0", 4)
    device.slots.save(confirmed("one", one))
    device.slots.save(confirmed("other", other))
    before = device.blobs_on_disk()
    manifest = device.blobs.folder / one.digest.removeprefix("sha256:")
    shutil.copy(manifest, device.folder / "kept")
    manifest.write_bytes(b"rubbish")
    device.slots.collect()
    assert before == device.blobs_on_disk()
