"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from support.repository import REPOSITORY

pytest_plugins = ["support.brokers", "support.servers"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that the project does not ship; skips where it is absent."""
    named = os.environ.get("EDGEPACK_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} (set EDGEPACK_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the configuration of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    for name in ("EDGEPACK_BROKER", "EDGEPACK_KEYS", "EDGEPACK_ROOT", "EDGEPACK_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):  # servers are on loopback
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
