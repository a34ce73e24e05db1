"""What the fault tests share."""

import os
import tempfile
from pathlib import Path

import pytest
from support.small_device import SmallDevice

from edgepack.agent.install import desires, retries


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A small device; its state folders lie in memory where there is some."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield SmallDevice(tmp_path_factory.mktemp("device"), Path(name))


@pytest.fixture(scope="module")
def first(device):
    """A state folder in which 1.0.0 is confirmed."""
    return device.make("first")


@pytest.fixture(scope="module")
def second(device, first):
    """A state folder in which 1.1.0 replaced 1.0.0."""
    state = device.copy(first, "second")
    seen = device.restart(state, "1.1.0")
    assert ("1.1.0", "confirmed") == (seen.last, seen.phase), seen
    return state


@pytest.fixture
def impatient(monkeypatch):
    """What failed is tried again at once."""
    monkeypatch.setattr(retries, "FIRST_S", 0.01)
    monkeypatch.setattr(desires, "_RETRY_S", 0.01)
