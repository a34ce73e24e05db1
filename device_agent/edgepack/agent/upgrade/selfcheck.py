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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.agent.config import AgentConfig
from edgepack.agent.disk import storage_error
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade.place import DATABASES, Place

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
    with _copies(place, config.state_dir) as (folder, before):
        command = [
            str(place.program(name)),
            "selfcheck",
            "--config",
            str(config_path),
            "--state",
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
            models = int(answer["models"])
        except (ValueError, KeyError, TypeError) as exc:
            raise UpgradeError(f"release {name}: its check gave no answer that is JSON") from exc
        after = _schemas(folder)
        changes = any(after.get(database) != form for database, form in before.items())
        return Passed(models=models, changes_state=changes)


def check_models(config: AgentConfig, state: Path) -> int:
    """The new release's side: open copies, and run what is installed; how many models that are.

    Args:
        config: agent.toml; the store is in its state folder.
        state: Holds the copies of the databases.

    Raises:
        EdgepackError: The databases cannot be read.
        UpgradeError: A model does not answer as it should.
    """
    from edgepack.agent.install.journal import Journal
    from edgepack.agent.report.outbox import Outbox

    Outbox(state / "outbox.db", max_rows=config.limits.outbox_rows).close()
    path = state / "agent.db"
    if not path.exists():
        return 0
    with contextlib.closing(Journal(path)) as journal:
        journal.check()
        installed = [slot.active for slot in journal.slots().values() if slot.active is not None]
    for one in installed:
        wrong = golden_failure(config.state_dir / "store", one.digest, one.variant)
        if wrong:
            raise UpgradeError(f"{one.release.version} ({one.variant}): {wrong}")
    return len(installed)


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


@contextlib.contextmanager
def _copies(place: Place, state: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """Copies of the databases, while an agent uses them, and the form that each has."""
    folder = place.installation.base / ".selfcheck"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        for name in DATABASES:
            if (state / name).exists():
                _copy_database(state / name, folder / name)
        before = _schemas(folder)
        if os.geteuid() == 0:
            owner = state.stat()
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.st_uid, owner.st_gid)
        yield folder, before
    except OSError as exc:
        raise storage_error(folder, exc) from exc
    except sqlite3.Error as exc:
        raise UpgradeError(f"the databases in {state} cannot be copied: {exc}") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def _schemas(folder: Path) -> dict[str, int]:
    """The version of each database's form."""
    found = {}
    for name in DATABASES:
        if (folder / name).exists():
            with contextlib.closing(sqlite3.connect(folder / name)) as database:
                found[name] = int(database.execute("PRAGMA user_version").fetchone()[0])
    return found


def _as_owner(state: Path) -> dict[str, Any]:
    """Arguments that start a process as the user that the agent runs as."""
    if os.geteuid() != 0 or not state.exists():
        return {}
    owner = state.stat()
    if owner.st_uid == 0:
        return {}
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
