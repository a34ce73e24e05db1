"""The text of a new agent.toml, as `edgepack setup` and `edgepack-agent init` both write it.

It says what somebody said, and where HTTP is served; nothing else that has a default.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from edgepack.trust.values import dataclass

DEFAULT_HTTP: Final = "127.0.0.1:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConfig:
    """What goes into it.

    Attributes:
        device: The device's id; None where it is put in later (a stick for many).
        root: Path of root.json, from the file's folder.
        state: State folder; None for the default.
        broker: URL of the broker; None for an agent that works alone.
        username: For the broker; by default, with a password, the device's id.
        password_file, ca_file, cert_file, key_file: Paths from the file's folder.
        prefix: MQTT topic prefix; None for the default.
        http: Where HTTP is served, HOST:PORT; None for nowhere.
        tags: Groups of the device.
    """

    device: str | None
    root: str = "root.json"
    state: str | None = None
    broker: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    prefix: str | None = None
    http: str | None = DEFAULT_HTTP
    tags: Mapping[str, str] = field(default_factory=dict)


def new_agent_toml(new: NewConfig) -> str:
    """Write it; the agent's `read_config` says whether it holds."""
    lines = ["# What else may stand here: docs/operations.md. An unknown key is an error."]
    lines += _lines({"device": new.device, "root": new.root, "state": new.state})
    lines += _lines({"prefix": new.prefix})
    if new.tags:
        lines += ["", "[tags]", *_lines({_key(name): value for name, value in new.tags.items()})]
    if new.broker is not None:
        lines += ["", "[broker]"]
        username = new.username or (new.device if new.password_file is not None else None)
        lines += _lines({"url": new.broker, "username": username})
        lines += _lines({"password_file": new.password_file, "ca_file": new.ca_file})
        lines += _lines({"cert_file": new.cert_file, "key_file": new.key_file})
    if new.http is not None:
        lines += ["", "[http]", *_lines({"listen": new.http})]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _lines(values: Mapping[str, str | None]) -> list[str]:
    # JSON's strings are TOML's basic strings
    return [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
