"""What a release must pass before it may run: its own code, on copies of the agent's databases.

The old release starts `edgepack-agent selfcheck` of the new one as the user that the agent runs as.
It reads agent.toml, opens the databases (which brings the copies to the new form), and lets
every installed model answer its golden samples from the agent's own store.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.disk import storage_error
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade.place import DATABASES, Place
from edgepack.trust.values import dataclass

_TIMEOUT_S = 600.0
_SHOWN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a release that passed said.

    Attributes:
        models: How many models answered their golden samples.
        changes_state: Whether it brings a database to another form.
    """

    models: int
    changes_state: bool


def ask_release(place: Place, name: str, config: AgentConfig, config_path: Path) -> Passed:
    """Let a release check itself on copies of this device's state.

    Raises:
        UpgradeError: It does not pass.
        StoreError: The disk does not take the copies.
    """
    with _folder_of_owner(place, config.state_dir) as folder:
        command = [
            str(place.program(name)),
            "selfcheck",
            "--config",
            str(config_path),
            "--scratch",
            str(folder),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
                **_as_owner(config.state_dir),
            )
        except subprocess.TimeoutExpired as exc:
            raise UpgradeError(f"release {name}: its check took over {_TIMEOUT_S:.0f} s") from exc
        except OSError as exc:
            raise UpgradeError(f"release {name} cannot be started: {exc.strerror}") from exc
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
            raise UpgradeError(f"release {name} does not pass its check: {lines[-1][-_SHOWN:]}")
        try:
            answer = json.loads(done.stdout)
            return Passed(models=int(answer["models"]), changes_state=bool(answer["changes_state"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise UpgradeError(f"release {name}: its check gave no answer that is JSON") from exc


def check_here(config: AgentConfig, scratch: Path) -> Passed:
    """The new release's side: open copies of the databases, and run what is installed.

    Args:
        config: agent.toml; the agent may be running on its state folder.
        scratch: An empty folder, for the copies.

    Raises:
        EdgepackError: The databases cannot be read.
        UpgradeError: A model does not answer as it should.
    """
    from edgepack.agent.install.journal import Journal
    from edgepack.agent.report.outbox import Outbox

    before = _copy_databases(config.state_dir, scratch)
    Outbox(scratch / "outbox.db", max_rows=config.limits.outbox_rows).close()
    path = scratch / "agent.db"
    if not path.exists():
        return Passed(models=0, changes_state=False)
    with contextlib.closing(Journal(path)) as journal:
        journal.check()
        installed = [slot.active for slot in journal.slots().values() if slot.active is not None]
    for one in installed:
        wrong = golden_failure(config.state_dir / "store", one.digest, one.variant)
        if wrong:
            raise UpgradeError(f"{one.release.version} ({one.variant}): {wrong}")
    after = {name: _form(scratch / name) for name in before}
    return Passed(models=len(installed), changes_state=after != before)


def golden_failure(store: Path, digest: str, variant: str) -> str:
    """Why an installed model does not answer its golden samples as it should, or ""."""
    from edgepack.bundle import open_layout
    from edgepack.runtime import load, parse_golden
    from edgepack.runtime.selftest import judge
    from edgepack.trust.errors import EdgepackError

    try:
        bundle = open_layout(store, digest, hash_blobs=False)
        golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
        with contextlib.closing(load(bundle, variant=variant)) as model:
            return judge(model, golden).reason or ""
    except (EdgepackError, OSError) as exc:
        return str(exc)


def _copy_databases(state: Path, target: Path) -> dict[str, str]:
    """Copy the databases while an agent uses them; the form that each has."""
    try:
        for name in DATABASES:
            if not (state / name).exists():
                continue
            source = f"{(state / name).absolute().as_uri()}?mode=ro"
            with (
                contextlib.closing(sqlite3.connect(source, uri=True)) as old,
                contextlib.closing(sqlite3.connect(target / name)) as new,
            ):
                old.backup(new)
    except sqlite3.Error as exc:
        raise UpgradeError(f"the databases in {state} cannot be copied: {exc}") from exc
    return {name: _form(target / name) for name in DATABASES if (target / name).exists()}


def _form(database: Path) -> str:
    """The form of a database: what tables it has, and the version that it says."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        version = opened.execute("PRAGMA user_version").fetchone()[0]
        tables = opened.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    return f"{version} {tables}"


@contextlib.contextmanager
def _folder_of_owner(place: Place, state: Path) -> Iterator[Path]:
    """An empty folder that the user of the state folder may write."""
    folder = place.installation.base / ".selfcheck"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0 and state.exists():
            os.chown(folder, state.stat().st_uid, state.stat().st_gid)
    except OSError as exc:
        raise storage_error(folder, exc) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_owner(state: Path) -> dict[str, Any]:
    """Arguments that start a process as the user that the agent runs as."""
    if os.geteuid() != 0 or not state.exists():
        return {}
    owner = state.stat()
    if owner.st_uid == 0:
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
