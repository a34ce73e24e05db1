"""The text of a new agent.toml: what somebody said, and nothing that has a default."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_HTTP = "127.0.0.1:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConfig:
    """What goes into it.

    Attributes:
        device: The device's id.
        root: Path of root.json, from the file's folder.
        state: State folder; None for the default.
        broker: URL of the broker; None for an agent that works alone.
        username: For the broker.
        password_file, ca_file: Paths from the file's folder.
        prefix: MQTT topic prefix; None for the default.
        http: Where HTTP is served, HOST:PORT; None for nowhere.
        tags: Groups of the device.
    """

    device: str
    root: str = "root.json"
    state: str | None = None
    broker: str | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    prefix: str | None = None
    http: str | None = DEFAULT_HTTP
    tags: Mapping[str, str] = field(default_factory=dict)


def new_agent_toml(new: NewConfig) -> str:
    """Write it; read it back with `read_config` to know whether it holds."""
    lines = ["# What else may stand here: docs/operations.md. An unknown key is an error."]
    lines += _lines({"device": new.device, "root": new.root, "state": new.state})
    lines += _lines({"prefix": new.prefix})
    if new.tags:
        lines += ["", "[tags]", *_lines({json.dumps(key): new.tags[key] for key in new.tags})]
    if new.broker is not None:
        lines += ["", "[broker]"]
        lines += _lines({"url": new.broker, "username": new.username})
        lines += _lines({"password_file": new.password_file, "ca_file": new.ca_file})
    if new.http is not None:
        lines += ["", "[http]", *_lines({"listen": new.http})]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, str | None]) -> list[str]:
    # JSON's strings are TOML's basic strings
    return [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
