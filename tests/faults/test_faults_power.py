"""Power cuts: a disk that drops what was not synced, at every system call of an install.

One install is recorded, system call by system call (strace), those of SQLite included. For every
prefix of the recording the states are built that a power cut may leave (`support.disk_model` says
which, and which not), and the real agent is started on each. Limits: the recorded install is one
order of events of many; memory that SQLite maps (`-shm`) is left out, for it means nothing after
a restart; mixtures of several torn files are not tried.
"""

import os

import pytest
from support import disk_recording as recording
from support.disk_model import Disk

from edgepack.agent.report.outbox import Outbox, Rank
from edgepack.agent.report.publisher import Publisher

pytestmark = pytest.mark.timeout(600)


def record(device, state, version, log, *, sabotage=lambda: None):
    """Install a version under strace."""
    recording.strace_or_skip()

    def before():
        told = Publisher.slot_changed

        def slot_changed(self, slot):
            recording.note(f"{slot.phase} {slot.target == device.digests[version]}")
            told(self, slot)

        Publisher.slot_changed = slot_changed
        sabotage()
        recording.attach(log)

    assert 0 == device.install(state, version, before=before)
    recording.wait_for_end(log)


class Cuts:
    """The distinct states that power cuts may leave, with what was promised by then.

    Args:
        log: The recording.
        folder: What was recorded.
        before: What was in it before.
        only: Kinds of states to try; all when empty.
        inside: Only what is under this folder in it counts.
    """

    def __init__(self, log, folder, before, *, only=(), inside=""):
        self.promised = {"answers": False, "confirmed": False}
        self.prefixes = 0
        self.disk = Disk(before)
        self.outboxes = {}
        self._log, self._folder, self._only, self._inside = log, folder, only, inside
        self._seen = set()

    def __iter__(self):
        for done in recording.replay(self._log, self._folder, self.disk):
            if done.startswith("note "):
                self.promised["answers"] |= done == "note probation True"
                self.promised["confirmed"] |= done == "note confirmed True"
                continue
            self.prefixes += 1
            for kept, whole in self.disk.after_power_cut():
                if self._only and kept not in self._only:
                    continue
                tree = under(whole, self._inside)
                if self._is_new(kept, tree):
                    yield f"{self.prefixes} {done}, kept: {kept}", kept, tree

    def _is_new(self, kept, tree):
        box = {path: data for path, data in tree.items() if path.startswith("outbox")}
        self.outboxes.setdefault(tuple(sorted(box.items())), box)
        # mixtures of what is fetched are tried by the dozen already: nothing of it counts as kept
        mixed = kept not in ("nothing", "all", "names")
        unimportant = ("outbox", "staging/") if mixed else ("outbox",)
        rest = [(path, data) for path, data in tree.items() if not path.startswith(unimportant)]
        key = hash((*sorted(rest), *self.promised.values()))
        new = key not in self._seen
        self._seen.add(key)
        return new


def under(tree, folder):
    """The part of a tree that is under a folder."""
    return {
        path.removeprefix(folder): data
        for path, data in tree.items()
        if path.startswith(folder) and path != folder
    }


def judge(device, cuts, old, new):
    """Start the device on every state; what is wrong, as it comes.

    What answered before goes on answering, or the new version does; what was told to the world
    holds; nothing that the device believes to be installed fails to load.
    """
    state = device.states / "cut"
    best = old
    for where, kept, tree in cuts:
        recording.write_tree(state, tree)
        complete = kept == "nothing"
        seen = device.restart(state, new if complete else None)
        good = {new} if cuts.promised["answers"] else {old, new}
        if seen.first not in good or (best == new and seen.first != new):
            yield where, "answers", seen
        if seen.log:
            yield where, "warns", seen
        if complete:
            best = max(best, seen.first)
            if (seen.last, seen.phase) != (new, "confirmed"):
                yield where, "does not complete", seen
        elif cuts.promised["confirmed"] and seen.confirmed != new:
            yield where, "forgets that it is confirmed", seen


def test_a_power_cut_anywhere_in_an_upgrade(device, first, tmp_path):
    """A good version answers, and nothing that the device told is forgotten."""
    state = device.copy(first, "upgrade")
    before = recording.read_tree(state)
    record(device, state, "1.1.0", tmp_path / "log")
    cuts = Cuts(tmp_path / "log", state, before)

    assert [] == list(judge(device, cuts, "1.0.0", "1.1.0"))
    assert cuts.disk.now() == recording.read_tree(state)  # nothing was overlooked
    assert all(cuts.promised.values())
    assert cuts.prefixes > 100
    for box in cuts.outboxes.values():  # reports may be lost; the box works
        recording.write_tree(tmp_path / "box", box)
        outbox = Outbox(tmp_path / "box" / "outbox.db", max_rows=100)
        outbox.put("t", b"{}", rank=Rank.EVENT)
        outbox.close()


def test_a_power_cut_anywhere_in_the_first_install(device, tmp_path):
    """Nothing or the version answers; once it was said to answer, it does."""
    folder = device.states / "fresh"
    folder.mkdir()
    record(device, folder / "state", "1.0.0", tmp_path / "log")
    kinds = ("nothing", "all", "names", "one name")
    cuts = Cuts(tmp_path / "log", folder, {}, only=kinds, inside="state/")

    assert [] == list(judge(device, cuts, "", "1.0.0"))
    assert all(cuts.promised.values())


def lazy_fsync(of_folders):
    """Plant a defect: folders, or files, are not synced any more (SQLite's own are)."""

    def sabotage():
        fsync = os.fsync

        def planted(descriptor):
            is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
            if is_folder != of_folders:
                fsync(descriptor)

        os.fsync = planted

    return sabotage


def lazy_journal():
    """Plant a defect: the journal is not synced any more."""
    import edgepack.agent.install.journal as journal

    connect = journal.sqlite3.connect

    class Lazy(journal.sqlite3.Connection):
        def execute(self, sql, *values):
            return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *values)

    journal.sqlite3.connect = lambda *a, **k: connect(*a, factory=Lazy, **k)


@pytest.mark.parametrize(
    "sabotage", [lazy_fsync(False), lazy_fsync(True), lazy_journal], ids=["file", "folder", "db"]
)
def test_a_missing_sync_is_noticed(device, first, tmp_path, sabotage):
    """The test itself is tested: without one of the syncs it fails."""
    state = device.copy(first, "planted")
    before = recording.read_tree(state)
    record(device, state, "1.1.0", tmp_path / "log", sabotage=sabotage)
    kinds = ("nothing", "names", "one name")
    cuts = Cuts(tmp_path / "log", state, before, only=kinds)

    assert next(judge(device, cuts, "1.0.0", "1.1.0"), None) is not None
