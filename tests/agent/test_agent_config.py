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
    assert BrokerAddress("h", 80, False, "/mqtt") == broker_address("ws://h")
    assert BrokerAddress("h", 443, True, "/a/b?c=d") == broker_address("wss://h/a/b?c=d")


INPUT = 'root = "r"\n[broker]\nurl = "mqtt://h"\n[[input]]\nmodel = "m"\n'
ACTION = 'root = "r"\n[broker]\nurl = "mqtt://h"\n[[action]]\nname = "a"\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INPUT, "input 'm': must have one source"),
        (INPUT + 'topic = "a"\nstdin = true\n', "must have one source"),
        (INPUT + 'topic = "a/#/b"\n', "topic filter must be like"),
        (INPUT + 'topic = "a"\nrequest_id = "a..b"\n', "a JSON path is like"),
        (INPUT + 'topic = "a"\ntrigger = ["b"]\n', "trigger must name topics of this input"),
        (INPUT + 'topic = "a"\n[input.features]\nx = { scale = 0 }\n', "scale must be finite"),
        (INPUT + 'topic = "a"\n[input.features]\nx = { missing = "value" }\n', "needs a value"),
        (INPUT + 'topic = "a"\n[input.features]\nx = { map = { a = [1] } }\n', "numbers or text"),
        (INPUT + 'topic = "a"\n[input.features]\nx = { pth = "b" }\n', "unknown key pth"),
        (
            INPUT + 'topic = "a/+"\n[input.features]\nx = { topic = "b/#" }\n',
            "must have the same wildcards",
        ),
        (INPUT + '[input.features]\nx = { topic = "b" }\ny = {}\n', "features without a topic"),
        (INPUT + 'topic = "a"\nwindow = { fill_s = 1 }\n', "fill_s needs window.rate_hz"),
        (INPUT + 'topic = "a"\nwindow = { length = 0 }\n', "window.length must be > 0"),
        (INPUT + 'topic = "a"\nbroker = { url = "http://x" }\n', "broker url must be mqtt"),
        (INPUT + 'stdin = true\n[[input]]\nmodel = "m"\nstdin = true\n', "two inputs are called"),
        (INPUT + 'files = { path = "p" }\nstream = "a"\n', "files take no features"),
        ('root = "r"\n[[input]]\nmodel = "m"\ntopic = "a"\n', "neither [broker] nor a broker"),
        (ACTION, "missing field at action[0].when"),
        (ACTION + "when = {}\n", "when must hold a condition"),
        (ACTION + 'when = { labels = ["x"] }\ntopic = "a/+"\n', "topic must have no wildcards"),
        (
            ACTION.replace('root = "r"', 'root = "r"\ndevice = "d"')
            + 'when = { labels = ["x"] }\ntopic = "edgepack/v1/d/out/status"\n',
            "must not be among the agent's own reports",
        ),
        (ACTION + "when = { above = nan }\n", "must be finite"),
        (ACTION + "when = { min_confidence = 2 }\n", "min_confidence must be in 0..1"),
        (ACTION + 'when = { labels = ["x"] }\nqos = 3\n', "qos must be 0, 1 or 2"),
        (ACTION + 'when = { labels = ["x"] }\npayload = 5\n', "payload must be text or a table"),
        (
            ACTION + 'when = { labels = ["x"] }\npayload = { a = 2020-01-01 }\n',
            "payload must hold text, numbers",
        ),
        (ACTION + 'when = { labels = ["x"] }\nin_a_row = 0\n', "in_a_row must be in"),
        ('root = "r"\n[log]\nmax_mb = 0\n', "log.max_mb must be > 0"),
        ('root = "r"\n[predictions.models.m]\nmin_change = -1\n', "min_change must be >= 0"),
    ],
)
def test_a_mistake_in_inputs_and_actions_names_them(tmp_path, text, message):
    """Before anything is started."""
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_of_inputs_and_of_the_log_are_relative_to_the_file(tmp_path):
    """As all others are; names are those of the models."""
    text = (
        'root = "r"\nstate = "state"\n[[input]]\nmodel = "m"\nfiles = { path = "spool" }\n'
        '[[input]]\nmodel = "n"\nsocket = "door"\n'
        '[[input]]\nmodel = "o"\ntopic = "t"\nbroker = { url = "mqtt://h", ca_file = "ca" }\n'
    )
    config = read_config(write(tmp_path, text))
    files, door, broker = config.input
    assert files.files is not None
    assert broker.broker is not None
    assert [
        str(tmp_path / name) for name in ("spool", "door", "ca", "state/predictions.jsonl")
    ] == [files.files.path, door.socket, broker.broker.ca_file, config.log.path]
    assert ["m", "n", "o"] == [one.name for one in config.input]
