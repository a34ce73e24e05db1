"""Who may read and write what."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgepack.agent.config import BrokerConfig
from edgepack.agent.doctor.access import may, user_name
from edgepack.agent.doctor.feeds import other_brokers
from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.agent.install.sealing import KEY_FILE

_OTHERS = 0o007
_MOST_FILES = 100_000


def check_permissions(patient: Patient) -> Iterator[Finding]:
    """Of the state folder, of secrets, and of what the agent has to read."""
    state = patient.config.state_dir
    if not state.exists():
        yield ok("permissions", f"{state} is made at the first start")
        return
    wrong = [*_state(state), *_secrets(patient), *_readable(patient, state.stat())]
    yield from wrong
    if not wrong:
        yield ok("permissions", f"{state} is {user_name(state.stat().st_uid)}'s alone")


def _state(state: Path) -> Iterator[Finding]:
    found = state.stat()
    if found.st_mode & _OTHERS:
        yield warn(
            "permissions",
            f"{state} has mode {stat.S_IMODE(found.st_mode):04o}: other users see into it",
            f"chmod o= {state}",
        )
    strangers = []
    for number, path in enumerate(state.rglob("*")):
        if number > _MOST_FILES:
            break
        try:
            if path.lstat().st_uid != found.st_uid:
                strangers.append(path)
        except OSError:
            continue
    if strangers:
        user = user_name(found.st_uid)
        yield fail(
            "permissions",
            f"{len(strangers)} files in {state} are not {user}'s, like {strangers[0].name}: "
            "somebody ran the agent as another user",
            f"stop the agent; chown -R --reference={state} {state}; start it",
        )
    key = state / KEY_FILE
    if key.exists() and key.stat().st_mode & 0o077:
        yield fail("permissions", f"{key} can be read by others", f"chmod 600 {key}")


def _secrets(patient: Patient) -> Iterator[Finding]:
    secrets = [
        (name, path)
        for broker in _brokers(patient)
        for name, path in (("password_file", broker.password_file), ("key_file", broker.key_file))
    ]
    for name, path in dict.fromkeys(secrets):
        if path is None:
            continue
        try:
            mode = Path(path).stat().st_mode
        except OSError as exc:
            yield fail(
                "permissions", f"{name} {path}: {exc.strerror}", "put it there, or mend agent.toml"
            )
            continue
        if mode & _OTHERS:
            yield warn(
                "permissions", f"{name} {path} can be read by every user", f"chmod o= {path}"
            )


def _readable(patient: Patient, owner: os.stat_result) -> Iterator[Finding]:
    config = patient.config
    files = [patient.config_path, Path(config.root)]
    for broker in _brokers(patient):
        secrets = (broker.password_file, broker.ca_file, broker.key_file)
        files += [Path(path) for path in secrets if path is not None]
    for path in dict.fromkeys(files):
        if path.exists() and not may(path, os.R_OK, owner):
            user = user_name(owner.st_uid)
            yield fail(
                "permissions",
                f"{user}, who runs the agent, cannot read {path}",
                f"chgrp {owner.st_gid} {path}; chmod g+r {path}",
            )


def _brokers(patient: Patient) -> list[BrokerConfig]:
    return [patient.config.broker, *other_brokers(patient.config)]
