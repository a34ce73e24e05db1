"""A device id or a model's name with wildcards, levels or dots is refused at every door."""

import json

import pytest

from edgepack.agent.config import read_config
from edgepack.agent.errors import ConfigError
from edgepack.bundle.contract_rules import is_name
from edgepack.fleet import TargetError, Targets
from edgepack.trust.errors import EdgepackError
from edgepack.wire.audit import AuditEvent, parse_event, render_event
from edgepack.wire.desired import (
    Audience,
    Desired,
    DesiredModel,
    parse_desired,
    render_desired,
)
from edgepack.wire.errors import WireError
from edgepack.wire.topics import DeviceTopics, check_id, model_of, parse_out_topic

BAD = ["+", "#", "a/b", "..", "../x", "a+", "a#", "", ".", "a b", "a\n", "ä", "a\x00", "x" * 65]


def desired(device="d", model="m"):
    return Desired(
        audience=Audience(prefix="p", device=device),
        generation=1,
        issued_s=0,
        expires_s=1,
        models=(DesiredModel(name=model, version="1.0.0", digest="sha256:" + "0" * 64),),
    )


def config(tmp_path, device):
    path = tmp_path / "agent.toml"
    path.write_text(f"root = 'r'\ndevice = {json.dumps(device)}\n")
    return read_config(path)


def event(device):
    return AuditEvent(
        device=device,
        prefix="p",
        instance="ab",
        number=1,
        previous="",
        kind="key",
        ts=0,
        clock="plausible",
    )


@pytest.mark.parametrize("bad", BAD)
def test_no_door_lets_a_bad_device_id_in(tmp_path, bad):
    """Configuration, topics, desired states, events and commands."""
    doors = [
        lambda: check_id(bad, what="device id"),
        lambda: DeviceTopics("p", bad),
        lambda: render_desired(desired(device=bad)),
        lambda: parse_desired(
            render_desired(desired(device="d")).replace(b'"device":"d"', _quoted("device", bad))
        ),
        lambda: parse_out_topic("p", f"p/{bad}/out/info"),
        lambda: Targets(devices=(bad,)),
        lambda: render_event(event(bad)),
        lambda: parse_event(
            render_event(event("d")).replace(b'"device":"d"', _quoted("device", bad))
        ),
    ]
    for door in doors:
        with pytest.raises((WireError, TargetError)) as caught:
            door()
        assert "\n" not in str(caught.value)
    if bad:  # no id at all means the host's name
        with pytest.raises(ConfigError, match="device id must match"):
            config(tmp_path, bad)


@pytest.mark.parametrize("bad", BAD)
def test_no_door_lets_a_bad_model_name_in(bad):
    """Desired states, the last level of a request's topic, and the contract of a bundle."""
    doors = [
        lambda: check_id(bad, what="model name"),
        lambda: render_desired(desired(model=bad)),
        lambda: parse_desired(
            render_desired(desired()).replace(b'"name":"m"', _quoted("name", bad))
        ),
    ]
    if "/" not in bad:  # a level more is another topic, which nobody subscribes to
        doors.append(lambda: model_of(f"p/d/in/infer/{bad}"))
    for door in doors:
        with pytest.raises(WireError):
            door()
    assert not is_name(bad)


def test_blob_is_no_device():
    """Its topics are those of blobs and roots."""
    with pytest.raises(WireError, match="reserved"):
        DeviceTopics("p", "blob")


def test_a_host_name_with_dots_gives_an_id_without(tmp_path, monkeypatch):
    """The default id is safe whatever the host is called."""
    import platform

    monkeypatch.setattr(platform, "node", lambda: "../press+7.example/#")
    path = tmp_path / "agent.toml"
    path.write_text("root = 'r'\n")
    assert "---press-7-example--" == read_config(path).device
    assert issubclass(ConfigError, EdgepackError)


def _quoted(field, value):
    return f'"{field}":{json.dumps(value)}'.encode()
