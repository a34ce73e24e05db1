"""The child processes of an install, when they do not end by themselves."""

import asyncio
import stat
import sys

import pytest

from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.journal import Stored
from edgepack.agent.install.worker import Worker

STORED = Stored(digest="sha256:" + "a" * 64, name="m", version="1", sequence=1, signatures=())


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Let a shell command stand for the child process."""

    def stand_in(command):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))

    return stand_in


def self_test(tmp_path, timeout_s=20.0):
    worker = Worker(tmp_path / "root.json", tmp_path / "roots", self_test_timeout_s=timeout_s)
    return asyncio.run(worker.self_test(tmp_path, STORED))


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_a_child_that_was_stopped_says_nothing_about_the_bundle(tmp_path, child, name):
    """An init system stops the child together with the agent: it is tried again after the start."""
    child(f"kill -{name} $$")
    with pytest.raises(StoreError, match=f"interrupted by signal SIG{name}"):
        self_test(tmp_path)


@pytest.mark.parametrize("command", ["kill -SEGV $$", "exit 3", "echo rubbish"])
def test_a_child_that_crashes_rejects(tmp_path, child, command):
    """An engine that takes its process down is the bundle's fault."""
    child(command)
    with pytest.raises(RejectedError) as caught:
        self_test(tmp_path)
    assert "self_test_crashed" == caught.value.reason


def test_a_child_that_hangs_is_ended(tmp_path, child):
    """The limit in agent.toml holds."""
    child("exec sleep 60")
    with pytest.raises(RejectedError) as caught:
        self_test(tmp_path, timeout_s=0.3)
    assert "self_test_timeout" == caught.value.reason


def test_two_runs_never_share_a_staging_folder(tmp_path):
    """A child that outlived a killed agent writes where nobody looks any more."""
    first = BlobStore(tmp_path).staging_for(STORED.digest)
    assert first != BlobStore(tmp_path).staging_for(STORED.digest)
