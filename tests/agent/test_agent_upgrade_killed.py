"""Kill -9 at every file operation of an upgrade: whatever starts next, starts."""

import asyncio
import contextlib
import shutil
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from support.forked import in_fork
from support.kill_points import KillPoints

from edgepack.agent.config import read_config
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade import upgrade
from edgepack.agent.upgrade.place import Attempt, Origin, Place
from edgepack.agent.upgrade.proof import prove
from edgepack.agent.upgrade.selfcheck import Passed
from edgepack.agent.upgrade.upgrade import Patience, Upgrader, settle
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.installation import Installation
from edgepack.wire.wheelhouse import sign_wheelhouse

OLD = "1"


class Device:
    """Releases that are nothing but a name, and a service that knows which one runs.

    Release 1 reads databases of form 1 only; any other brings them to form 2.
    """

    def __init__(self, root, *, sick=False):
        self.place = Place(Installation(root))
        self.state = self.place.installation.state
        self.sick = sick
        self.runs = OLD

    def boot(self):
        """What systemd does: settle, then start what `current` names; the release."""
        settle(self.place, self.state)
        self.start()
        return self.runs

    def start(self):
        release = self.place.current()
        with contextlib.closing(sqlite3.connect(self.state / "agent.db")) as database:
            form = database.execute("PRAGMA user_version").fetchone()[0]
            assert release != OLD or form == 1, f"release 1 cannot read form {form}"
            if release != OLD and form != 2:
                database.execute("PRAGMA user_version = 2")
        self.runs = "" if self.sick and release != OLD else release

    def stop(self):
        self.runs = ""

    def restart(self):
        self.stop()
        self.start()

    def reload(self):
        pass

    def answer(self):
        """What the running agent says."""
        if not self.runs:
            return None
        return {"agent": {"release": self.runs, "pid": 1}, "models": [], "serving": {}}

    def upgrade(self, house):
        config = read_config(self.place.installation.config)
        upgrader = Upgrader(
            self.place,
            config,
            self.place.installation.config,
            self,
            tell=lambda _: None,
            patience=Patience(timeout_s=0.0, steady_s=0.0),
        )
        upgrader._ask = self.answer
        return upgrader.run(house, older=False)


def make(place, name, folder, house):
    """As `make_release`, without an environment."""
    if place.origin(name) is None:
        place.discard(name)
        (place.release(name) / "bin").mkdir(parents=True)
        place.program(name).touch()
        place.completed(name, Origin(version=house.version, sequence=house.sequence))


@pytest.fixture
def house(tmp_path):
    keys = keygen(tmp_path / "keys")
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "edgepack-2-py3-none-any.whl").write_bytes(b"wheel")
    sign_wheelhouse(folder, [PrivateKey.load(keys.release_key)], sequence=2)
    return folder


@pytest.fixture
def start(tmp_path, house, monkeypatch):
    """A device's files before the upgrade, under a short path: its state has a unix socket."""
    with tempfile.TemporaryDirectory(prefix="killed-") as folder:
        yield device_files(Path(folder) / "start", tmp_path, monkeypatch)


def device_files(root, tmp_path, monkeypatch):
    here = Installation(root)
    for folder in (here.releases / OLD / "bin", here.etc, here.state, here.unit.parent):
        folder.mkdir(parents=True)
    (here.releases / OLD / "bin/edgepack-agent").touch()
    here.current.symlink_to(f"releases/{OLD}")
    here.unit.write_text(OLD)
    here.config.write_text(f'root = "{tmp_path}/keys/root.json"\nstate = "../../var/lib/edgepack"')
    sqlite3.connect(here.state / "agent.db").execute("PRAGMA user_version = 1").close()
    monkeypatch.setattr(upgrade, "make_release", make)
    monkeypatch.setattr(upgrade, "unit_of", lambda release: release.name)
    passed = Passed(models=0, changes_state=True)
    monkeypatch.setattr(upgrade, "ask_release", lambda *_: passed)
    monkeypatch.setattr("edgepack.agent.upgrade.place.os.sync", lambda: None)
    return root


def copy(start, number):
    root = start.with_name(f"killed-{number}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(start, root, symlinks=True)
    return root


def killed(start, house, *, sick):
    """The upgrade, killed before each of its file operations; the device and its exit status."""
    points = KillPoints(copy(start, "count"))

    def work(points, stop):
        points.watch(agent_stop=stop)
        with contextlib.suppress(UpgradeError):
            Device(points.state, sick=sick).upgrade(house)
        return ""

    assert (0, "") == in_fork(lambda: work(points, -1))
    count, _ = points.counts
    assert count > 20
    for number in range(count):
        points = KillPoints(copy(start, number))
        status, text = in_fork(lambda points=points, number=number: work(points, number))
        assert -signal.SIGKILL == status, text
        yield Device(points.state, sick=sick)
        shutil.rmtree(points.state)


@pytest.mark.parametrize("sick", [False, True])
def test_a_power_cut_anywhere_in_an_upgrade(start, house, sick):
    """Exactly one release starts, with a state and a unit that are its own, and nothing is open."""
    ended = set()
    for device in killed(start, house, sick=sick):
        place, attempt = device.place, device.place.attempt()
        runs = device.boot()
        assert runs in (OLD, place.current())
        assert (None, False) == (place.attempt(), place.trying.is_symlink())
        assert not (place.installation.base / "state-before").exists()
        assert place.current() == place.installation.unit.read_text()
        ended.add(place.current() == OLD)
        if sick:
            assert OLD == runs
        if attempt is not None and runs == OLD:  # nothing of it takes room
            assert [place.release(OLD)] == list(place.installation.releases.iterdir())
    assert ended == ({True} if sick else {True, False})


def test_an_upgrade_again_after_one_that_was_killed_anywhere(start, house):
    """It completes, whether the device was started anew in between or not."""
    for restarted in (False, True):
        for device in killed(start, house, sick=False):
            if restarted:
                device.boot()
            else:
                device.start()  # whatever `current` names is what runs
            device.upgrade(house)
            assert device.runs == device.place.current() != OLD
            assert device.runs == device.place.installation.unit.read_text()
            assert None is device.place.attempt()


@pytest.mark.parametrize("proven", [True, False])
def test_a_release_that_ran_well_unwatched_is_kept(start, house, monkeypatch, proven):
    """Its own word counts where the process that watched is gone; without it, it goes."""

    def die(*_args, **_options):
        raise SystemExit

    device = Device(start)
    monkeypatch.setattr(upgrade, "watch", die)
    monkeypatch.setattr(Upgrader, "_go_back", die)
    with pytest.raises(SystemExit):
        device.upgrade(house)
    tried = device.place.current()
    assert tried != OLD
    if proven:
        (device.state / "release-healthy").write_text(tried)
    assert (tried if proven else OLD) == device.boot()
    assert proven == device.place.release(tried).exists()


def test_a_release_that_was_there_before_stays_when_it_is_taken_back(start, house):
    """Whoever goes back to the release before, and is interrupted, can try again."""
    device = Device(start)
    device.upgrade(house)
    newest = device.runs
    device.place.begin(Attempt(old=newest, new=OLD))
    device.place.switch(OLD)
    settle(device.place, device.state)
    assert newest == device.place.current()
    assert sorted([OLD, newest]) == sorted(
        p.name for p in device.place.installation.releases.iterdir()
    )


def test_the_proof_is_written_after_a_while(tmp_path, monkeypatch):
    """By the running release, under its own name."""
    monkeypatch.setattr("sys.prefix", "/opt/edgepack/releases/7-abc")

    async def run():
        task = asyncio.create_task(prove(tmp_path, after_s=0.0))
        deadline = time.monotonic() + 30
        while not (tmp_path / "release-healthy").exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert not task.done()  # a part of the agent never ends by itself
        task.cancel()

    asyncio.run(run())
    assert "7-abc" == (tmp_path / "release-healthy").read_text()
