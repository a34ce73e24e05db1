"""`edgepack-agent doctor` on what inputs and actions need: other brokers, folders, sockets."""

import os
import shutil
import socket
import subprocess

import paho.mqtt.publish as publish
import pytest
from support.agent_process import wait_until
from support.brokers import LOOPBACK, Mosquitto, running

from edgepack.agent.doctor.broker import check_broker
from edgepack.agent.doctor.examine import CHECKS, examine
from edgepack.agent.doctor.feeds import check_feeds
from edgepack.agent.doctor.files import check_permissions
from edgepack.agent.doctor.finding import Level
from edgepack.wire.installation import Installation

NOBODY = 65534


@pytest.fixture
def look(tmp_path):
    """`look(text, check)`: (level, text, mend) of each finding of one check for an agent.toml."""
    config = tmp_path / "agent.toml"
    (tmp_path / "state").mkdir()

    def run(text, check=check_feeds):
        config.write_text(f'device = "d1"\nstate = "state"\nroot = "root.json"\n{text}')
        _, *found = examine(config, Installation(tmp_path), checks=[check])
        return [(one.level, one.text, one.mend) for one in found]

    return run


def test_nothing_is_said_where_there_are_no_inputs(look):
    """And the doctor asks."""
    assert [] == look("")
    assert check_feeds in CHECKS


@pytest.mark.broker
def test_the_brokers_of_inputs_and_actions(look, tmp_path):
    """One line each, however many name it; a wrong password is that, and nothing is written."""
    users, rules = tmp_path / "users", tmp_path / "rules"
    users.touch(mode=0o600)
    passwd = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    subprocess.run([passwd, "-b", users, "d1", "right"], check=True, capture_output=True)
    rules.write_text("user d1\ntopic read z/#\n")
    rules.chmod(0o600)
    word = tmp_path / "word"
    word.touch(mode=0o644)
    with running(
        Mosquitto(tmp_path, extra=f"allow_anonymous false\npassword_file {users}\nacl_file {rules}")
    ) as broker:
        there = f'broker = {{ url = "{broker.url}", username = "d1", password_file = "word" }}'
        nowhere = 'broker = { url = "mqtt://127.0.0.1:1" }'
        text = (
            f'[[input]]\nmodel = "m"\ntopic = "z/#"\n{there}\n'
            f'[[action]]\nname = "valve"\nmodel = "m"\nwhen = {{ above = 1 }}\n{there}\n'
            f'[[action]]\nname = "bell"\nmodel = "m"\nwhen = {{ above = 1 }}\n{nowhere}\n'
        )
        where = f"{LOOPBACK} port {broker.port}"
        for password, level, said in (
            ("right", Level.OK, f"{where}, MQTT 5, without TLS"),
            ("wrong", Level.FAIL, f"{where} lets d1 not in: Not authorized"),
        ):
            word.write_text(password)
            one, other = look(text)
            assert (level, f"input 'm', action 'valve': {said}") == one[:2]
            assert bool(one[2]) == (level is Level.FAIL)
            assert Level.FAIL is other[0]
            assert other[1].startswith(
                f"action 'bell': no connection to {LOOPBACK} port 1: Connection refused"
            )
    texts = [text for _, text, _ in look(text, check_permissions)]
    assert f"password_file {word} can be read by every user" in texts


@pytest.mark.broker
def test_a_broker_over_websocket(look, tmp_path):
    """It is gone to as the agent goes there, the device's own broker and others."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    extra = f"allow_anonymous true\nlistener {port} {LOOPBACK}\nprotocol websockets"
    url = f'url = "ws://{LOOPBACK}:{port}/mqtt"'
    expected = f"{LOOPBACK} port {port}, MQTT 5 over WebSocket, without TLS"

    def listens():
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, port)) == 0

    with running(Mosquitto(tmp_path, extra=extra)) as broker:
        wait_until(listens, "the second listener answers, which comes after the first")
        publish.multiple(
            [(f"edgepack/v1/d1/{o}", b"offline", 1, True) for o in ("out/status", "in/desired")],
            hostname=LOOPBACK, port=broker.port,
        )  # fmt: skip
        own = look(f"[broker]\n{url}\n", check_broker)
        assert (Level.OK, expected, "") == own[0]
        other = look(f'[[input]]\nmodel = "m"\ntopic = "z"\nbroker = {{ {url} }}\n')
        assert [(Level.OK, f"input 'm': {expected}", "")] == other


def test_a_watched_folder(look, tmp_path):
    """It is there, and a folder."""
    folder = tmp_path / "images"
    text = '[[input]]\nmodel = "m"\nfiles = { path = "images" }\n'
    ((level, said, mend),) = look(text)
    assert (Level.FAIL, f"input 'm': folder {folder}: No such file or directory") == (level, said)
    assert "make it" in mend
    folder.touch()
    assert [(Level.FAIL, f"input 'm': {folder} is no folder")] == [one[:2] for one in look(text)]
    folder.unlink()
    folder.mkdir()
    assert [(Level.OK, f"input 'm': folder {folder} can be read", "")] == look(text)


def test_a_socket(look, tmp_path):
    """Its folder is there, and nothing else has its name."""
    path = tmp_path / "run/lines.sock"
    text = '[[input]]\nmodel = "m"\nsocket = "run/lines.sock"\n'
    assert [Level.FAIL] == [one[0] for one in look(text)]
    path.parent.mkdir()
    assert [(Level.OK, f"input 'm': socket {path} can be made", "")] == look(text)
    path.touch()
    assert [(Level.FAIL, f"input 'm': {path} is no socket")] == [one[:2] for one in look(text)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("source", "mode", "said"),
    [
        ('files = { path = "there" }', 0o755, "cannot read and write folder"),
        ('files = { path = "there", handled = "keep" }', 0o755, ""),
        ('files = { path = "there", handled = "keep" }', 0o750, "cannot read folder"),
        ('socket = "there/s"', 0o755, "cannot write folder"),
        ('socket = "there/s"', 0o773, ""),
    ],
)
def test_a_folder_that_the_agents_user_cannot_use(look, tmp_path, source, mode, said):
    """Root looks, and the user who runs the agent counts."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(mode)
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    parents = [one for one in tmp_path.parents if one.stat().st_mode & 0o1 == 0]
    for parent in (*parents, tmp_path):
        parent.chmod(parent.stat().st_mode | 0o1)  # pytest's own folders are closed
    ((level, text, mend),) = look(f'[[input]]\nmodel = "m"\n{source}\n')
    assert (Level.FAIL if said else Level.OK, True) == (level, said in text), text
    assert bool(said) == ("the right to" in mend)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_above_that_is_closed(look, tmp_path):
    """Is one that the agent cannot get through."""
    (tmp_path / "closed/there").mkdir(parents=True)
    (tmp_path / "closed/there").chmod(0o777)
    (tmp_path / "closed").chmod(0o700)
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    ((level, text, mend),) = look('[[input]]\nmodel = "m"\nsocket = "closed/there/s"\n')
    assert (Level.FAIL, True) == (level, "cannot write folder" in text)
    assert "folders above it need x" in mend
