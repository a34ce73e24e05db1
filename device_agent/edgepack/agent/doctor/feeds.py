"""What `[[input]]` and `[[action]]` need besides `[broker]`: other brokers, folders, sockets."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgepack.agent.config import AgentConfig, BrokerConfig
from edgepack.agent.config.inputs import FilesConfig, Handled
from edgepack.agent.doctor.access import may, user_name
from edgepack.agent.doctor.finding import Finding, fail, ok
from edgepack.agent.doctor.patient import Patient
from edgepack.agent.doctor.way import go

_CHECK = "inputs"
_RUNTIME_FOLDER = Path("/run/edgepack")  # systemd makes it at the start


def check_feeds(patient: Patient) -> Iterator[Finding]:
    """A line for each broker, folder and socket."""
    for broker, names in other_brokers(patient.config).items():
        yield from _broker(patient, broker, ", ".join(names))
    for one in patient.config.input:
        if one.files is not None:
            yield _named(one.name, _folder(patient, one.files))
        if one.socket is not None:
            yield _named(one.name, _socket(patient, Path(one.socket)))


def other_brokers(config: AgentConfig) -> dict[BrokerConfig, list[str]]:
    """The brokers besides `[broker]`, and who names them: `input 'press'`, `action 'valve'`."""
    found: dict[BrokerConfig, list[str]] = {}
    for kind, several in (("input", config.input), ("action", config.action)):
        for one in several:
            if one.broker is not None:
                found.setdefault(one.broker, []).append(f"{kind} {one.name!r}")
    return found


def _broker(patient: Patient, broker: BrokerConfig, names: str) -> Iterator[Finding]:
    filters = [
        topic for one in patient.config.input if one.broker == broker for topic in one.filters
    ]
    finding, seen = go(broker, patient.clock, filters=list(dict.fromkeys(filters)))
    yield replace(finding, check=_CHECK, text=f"{names}: {finding.text}")
    if seen is not None and seen.denied:
        yield fail(
            _CHECK,
            f"{names}: the broker refuses to let {', '.join(seen.denied)} be read",
            "let this user read there (`edgepack broker-acl --read`)",
        )


def _folder(patient: Patient, files: FilesConfig) -> Finding:
    folder = Path(files.path)
    needs, does = os.R_OK | os.X_OK, "read"
    if files.handled is not Handled.KEEP:
        needs, does = needs | os.W_OK, "read and write"
    return _wrong_folder(patient, folder, needs, does) or ok(_CHECK, f"folder {folder} can be read")


def _socket(patient: Patient, path: Path) -> Finding:
    folder = path.parent
    if folder == _RUNTIME_FOLDER and patient.answer is None and not folder.exists():
        return ok(_CHECK, f"{folder} is made at the start")
    wrong = _wrong_folder(patient, folder, os.W_OK | os.X_OK, "write")
    if wrong is None and path.exists() and not path.is_socket():
        wrong = fail(_CHECK, f"{path} is no socket", "move it away, or name another path")
    return wrong or ok(_CHECK, f"socket {path} can be made")


def _wrong_folder(patient: Patient, folder: Path, needs: int, does: str) -> Finding | None:
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as exc:
        return fail(_CHECK, f"folder {folder}: {exc.strerror}", "make it, or mend agent.toml")
    if not is_folder:
        return fail(_CHECK, f"{folder} is no folder", "name a folder in agent.toml")
    state = patient.config.state_dir
    if not state.exists() or may(folder, needs, state.stat()):
        return None
    return fail(
        _CHECK,
        f"who runs the agent cannot {does} folder {folder}",
        f"give {user_name(state.stat().st_uid)} the right to (chmod; folders above it need x)",
    )


def _named(name: str, finding: Finding) -> Finding:
    return replace(finding, text=f"input {name!r}: {finding.text}")
