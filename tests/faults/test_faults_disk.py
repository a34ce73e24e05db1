"""A disk that is full, read-only, failing or damaged: one clear line, and the last good model."""

import contextlib
import functools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections import namedtuple

import pytest
from support import brokers
from support import disk_recording as recording
from support.agent_process import AgentProcess, Operator, running, wait_until
from support.tiny_bundle import FEATURES, write_tiny_bundle

from edgepack.agent.install.journal import Journal
from edgepack.bundle import open_layout
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.topics import DEFAULT_PREFIX, root_topic

pytestmark = pytest.mark.timeout(300)

ROW = dict(zip(FEATURES, (0.5, -1.0, 2.0, 0.25), strict=True))


def damage(path, offset=0, size=None):
    """Overwrite part of a file, whatever its mode."""
    data = bytearray(path.read_bytes())
    end = len(data) if size is None else offset + size
    data[offset:end] = b"\xa5" * len(data[offset:end])
    path.chmod(0o600)
    path.write_bytes(data)


def change(path, statement):
    """Execute one statement on a database that nobody uses."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


UNCLEAN = "UPDATE meta SET value = CAST('1' AS BLOB) WHERE key = 'running'"
DAMAGES = {
    "all": damage,
    "header": lambda path: damage(path, 0, 16),
    "second half, unclean stop": lambda path: (
        change(path, UNCLEAN),
        damage(path, path.stat().st_size // 2),
    ),
    "slot": lambda path: change(path, "UPDATE slot SET document = CAST('{}' AS BLOB)"),
    "active pointer": lambda path: change(
        path,
        "UPDATE slot SET document ="
        """ CAST(replace(document, '"active":{', '"active":[{') AS BLOB)""",
    ),
    "generation": lambda path: change(
        path, "UPDATE meta SET value = CAST('x' AS BLOB) WHERE key = 'desired_generation'"
    ),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_database_is_set_aside(device, second, what):
    """The confirmed version answers at once, by the second copy; what is forgotten is said."""
    state = device.copy(second, "damaged")
    DAMAGES[what](state / "agent.db")
    seen = device.restart(state, "1.1.0")

    assert ("1.1.0", "1.1.0", "confirmed") == (seen.first, seen.last, seen.phase)
    assert 1 == seen.log.count("notice.state")
    assert "floors are those of the last confirmation" in seen.log
    assert (what != "gone") == (state / "agent.db.damaged").exists()
    again = device.restart(state, "1.1.0")
    assert ("1.1.0", "") == (again.first, again.log)


def test_a_device_that_lost_both_copies_begins_anew(device, second):
    """It says so, nothing answers, and the desired state brings its model back."""
    state = device.copy(second, "damaged")
    damage(state / "agent.db")
    damage(state / "spare.json")
    seen = device.restart(state, "1.1.0")

    assert ("", "1.1.0", "confirmed") == (seen.first, seen.last, seen.phase)
    assert "Models, floors and history are forgotten" in seen.log


def test_a_newer_agents_database_is_not_touched(device, second):
    """Going back to an older agent is refused in one line; nothing is set aside."""
    state = device.copy(second, "newer")
    change(state / "agent.db", "PRAGMA user_version = 99")
    with pytest.raises(AssertionError, match="was written by a newer agent: schema 99"):
        device.restart(state, None)
    assert not (state / "agent.db.damaged").exists()


def test_a_damaged_blob_of_the_confirmed_version(device, second, monkeypatch):
    """Whichever it is: no wrong answer, the version before helps out, the good one comes back."""
    monkeypatch.setattr(device, "final", ("confirmed",))
    store = second / "store"
    journal = Journal(second / "agent.db", read_only=True)
    stored = journal.bundles()
    journal.close()
    blobs = {
        version: {
            blob.digest
            for blob in open_layout(
                store, digest, signatures=stored[digest].signatures, hash_blobs=False
            ).blobs()
        }
        for version, digest in device.digests.items()
    }
    own = sorted(blobs["1.1.0"] - blobs["1.0.0"])
    assert len(own) >= 4
    helped = 0
    for digest in own:
        state = device.copy(second, "damaged")
        change(state / "agent.db", UNCLEAN)
        damage(state / "store" / "blobs" / "sha256" / digest.removeprefix("sha256:"))
        seen = device.restart(state, "1.1.0")
        assert seen.first in ("1.0.0", "1.1.0"), (digest, seen)
        assert ("1.1.0", "confirmed") == (seen.last, seen.phase), (digest, seen)
        helped += seen.first == "1.0.0"
    assert helped >= 2


def test_a_sync_that_fails_is_no_end(device, first, tmp_path, impatient):
    """EIO from each fsync of an install in turn, SQLite's too: said, tried again, completed."""
    recording.strace_or_skip()

    def install(number, name):
        state = device.copy(first, "failing")
        log = tmp_path / name
        faults = [f"{name}:error=EIO:when={number}"] if number else []
        before = functools.partial(recording.attach, log, *faults)
        code = device.install(state, "1.1.0", before=before)
        recording.wait_for_end(log)
        return state, code, log.read_text()

    for name in ("fsync", "fdatasync"):
        _, code, text = install(0, name)
        count = len(re.findall(rf"^\d+ +{name}\(", text, re.MULTILINE))
        assert (0, True) == (code, count > 3)
        for number in range(1, count + 1):
            state, code, text = install(number, name)
            assert "EIO" in text or number > 0.8 * count  # signing goes on in the background
            seen = device.restart(state, "1.1.0")
            assert seen.first in ("1.0.0", "1.1.0"), (name, number, seen)
            assert (0, "1.1.0", "confirmed") == (code, seen.last, seen.phase), (name, number, seen)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB of its own; only root may make one."""
    if os.geteuid() != 0:
        pytest.skip("a small file system is mounted by root only")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def on_small_disk(device, small_disk, impatient, monkeypatch):
    monkeypatch.setattr(device, "states", small_disk)
    return device


@pytest.mark.parametrize("left_bytes", [0, 4096, 12_288, 40_960, 81_920, 131_072])
def test_a_disk_that_fills_up_in_an_install(
    on_small_disk, first, small_disk, left_bytes, monkeypatch
):
    """Said in one line; the model answers; when there is room again the install completes."""
    device = on_small_disk
    state = device.copy(first, "full")
    filler = small_disk / "filler"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 39))  # a liar

    def fill():
        free = os.statvfs(small_disk)
        with filler.open("wb") as handle:
            handle.write(bytes(max(0, free.f_bavail * free.f_frsize - left_bytes)))

    def meanwhile(answering, log):
        assert answering() in ("1.0.0", "1.1.0")
        if "disk full" in log or "database or disk is full" in log:
            filler.unlink(missing_ok=True)

    fill()
    monkeypatch.setattr(device, "meanwhile", meanwhile)
    seen = device.restart(state, "1.1.0")
    assert ("1.0.0", "1.1.0", "confirmed") == (seen.first, seen.last, seen.phase)
    if left_bytes <= 12_288:
        assert "full" in seen.log
    assert "Traceback" not in seen.log


def test_too_little_room_is_seen_before_the_first_byte(on_small_disk, first, small_disk):
    """Refused with its reason; the model answers."""
    device = on_small_disk
    state = device.copy(first, "full")
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 1_000_000))
    seen = device.restart(state, "1.1.0")
    assert ("1.0.0", "1.0.0", "rejected", "disk_full") == (
        seen.first,
        seen.last,
        seen.phase,
        seen.reason,
    )


def test_a_disk_that_is_read_only_all_of_a_sudden(device, first, tmp_path, monkeypatch):
    """It goes on answering and says why it does not install; mended, the next start completes."""
    recording.strace_or_skip()
    state = device.copy(first, "state")

    def meanwhile(answering, log):
        assert answering() == "1.0.0"
        if "notice" in log or "desired" in log:
            (tmp_path / "said").write_text(log)
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(device, "meanwhile", meanwhile)
    code = device.install(
        state,
        "1.1.0",
        before=lambda: recording.attach(tmp_path / "log", "pwrite64:error=EROFS:when=1+"),
    )
    assert -signal.SIGKILL == code
    assert "agent.db cannot be used: disk I/O error" in (tmp_path / "said").read_text()
    monkeypatch.undo()
    seen = device.restart(state, "1.1.0")
    assert ("1.0.0", "1.1.0", "confirmed") == (seen.first, seen.last, seen.phase)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_a_start_on_a_read_only_disk(on_small_disk, first, small_disk):
    """What was confirmed answers, a notice says what does not work, and commands can look."""
    device = on_small_disk
    state = device.copy(first, "state")
    remount(small_disk, "ro")
    seen = device.restart(state, None)
    assert ("1.0.0", "1.0.0", "confirmed") == (seen.first, seen.last, seen.phase)
    assert "notice.storage detail=the state folder is on a read-only disk" in seen.log
    with contextlib.closing(Journal(state / "agent.db", read_only=True)) as journal:
        assert ["confirmed"] == [slot.phase.value for slot in journal.slots().values()]
    remount(small_disk, "rw")
    assert ("1.0.0", "") == ((again := device.restart(state, None)).first, again.log)


def test_a_first_start_on_a_read_only_disk_says_why_not(on_small_disk, small_disk):
    """One line with the file and the reason: there is nothing that could answer."""
    remount(small_disk, "ro")
    with pytest.raises(AssertionError, match=r"state cannot be used: Read-only file system"):
        on_small_disk.restart(small_disk / "state", None)


def test_a_real_device_goes_on_from_a_disk_that_became_read_only(small_disk, tmp_path):
    """Killed, it starts on what the last write left; it refuses deployments until it is mended."""
    keys = keygen(tmp_path / "keys")
    release = PrivateKey.load(keys.release_key)
    paths = [
        write_tiny_bundle(tmp_path, version=f"1.{minor}.0", seed=minor, key=release)
        for minor in range(2)
    ]
    with brokers.running(brokers.Mosquitto(tmp_path)) as broker:
        operator = Operator(broker.port, keys)
        agent = AgentProcess(tmp_path / "device", keys, broker.port)
        agent.config.write_text(
            agent.config.read_text().replace('state = "state"', f'state = "{small_disk}/state"')
        )
        try:
            with running(agent):
                old, new = (operator.upload(path) for path in paths)
                operator.desire(old)
                operator.wait_phase("confirmed", digest=old.digest)
                agent.kill()
                remount(small_disk, "ro")
                operator.publish(root_topic(DEFAULT_PREFIX, 2), b"kept for its session")
                agent.start()
                wait_until(lambda: agent.text().count("broker.connected") == 2, "it is back")
                assert "1.0.0" == operator.ask("read-only", ROW)["model_version"]
                wait_until(lambda: "storage" in operator.reported().get("notices", {}), "notice")
                operator.desire(new)
                wait_until(
                    lambda: "read-only disk" in operator.reported().get("refused", ""), "refused"
                )
                status = agent.command("status")
                assert (0, True) == (
                    status.returncode,
                    "1.0.0 (onnx-fp32), confirmed" in status.stdout,
                ), status
                assert 0 == agent.stop()
                remount(small_disk, "rw")
                agent.start()
                operator.wait_phase("confirmed", digest=new.digest)
        finally:
            operator.close()
    assert "Traceback" not in agent.text()
