"""agent.toml."""

import pytest

from edgepack.agent.config import BrokerAddress, broker_address, read_config
from edgepack.agent.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_is_enough(tmp_path):
    """Only the root of trust must be named; paths are relative to the file."""
    config = read_config(
        write(tmp_path, 'root = "root.json"\ndevice = "press-7"\nstate = "state"\n')
    )
    assert ("press-7", str(tmp_path / "root.json"), tmp_path / "state") == (
        config.device,
        config.root,
        config.state_dir,
    )


def test_without_a_device_id_the_host_name_is_taken(tmp_path):
    """The id is always valid in a topic."""
    config = read_config(write(tmp_path, 'root = "root.json"\n'))
    assert config.device
    assert set(config.device) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('root = "r"\ndevcie = "x"\n', "unknown key devcie"),
        ("", "missing field at root"),
        ('root = "r"\ndevice = "a/b"\n', "device id must match"),
        ('root = "r"\ndevice = "blob"\n', "reserved"),
        ('root = "r"\nprefix = "a/#"\n', "prefix must be"),
        ('root = "r"\n[broker]\nurl = "http://x"\n', "broker url must be mqtt"),
        ('root = "r"\n[broker]\nurl = "mqtt://u:secret@x"\n', "must not hold a user or password"),
        (
            'root = "r"\n[metrics]\ninterval_s = 0\n',
            "metrics.interval_s must be > 0 and finite, got 0",
        ),
        ('root = "r"\n[limits]\nmax_bundle_mb = inf\n', "max_bundle_mb must be > 0 and finite"),
        ('root = "r"\n[probation]\nseconds = nan\n', "probation.seconds must be > 0 and finite"),
        ('root = "r"\n[broker]\nkeepalive_s = 70000\n', "keepalive_s must be at most 65535"),
        ('root = "r"\n[predictions]\ninterval_s = nan\n', "predictions.interval_s must be >= 0"),
        (f'root = "r"\nstate = "/{"s" * 96}"\n', "state must be a path of at most 96 bytes"),
        ('root = "r"\n[drift]\nalpha = 2\n', "drift.alpha must be in 0..1, got 2"),
        ('root = "r"\n[limits]\noutbox_rows = "many"\n', "expected int, got str 'many'"),
        ("root = [", "agent.toml:"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, text, message):
    """Every mistake is found at the start, and no secret is shown."""
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    """Exit code 2."""
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_config(tmp_path / "none.toml")
    assert 2 == caught.value.exit_code


def test_ports_have_defaults():
    """1883, and 8883 with TLS."""
    assert BrokerAddress("h", 1883, False) == broker_address("mqtt://h")
    assert BrokerAddress("h", 8883, True) == broker_address("mqtts://h")
    assert BrokerAddress("::1", 99, False) == broker_address("mqtt://[::1]:99")
