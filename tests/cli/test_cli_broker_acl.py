"""`edgepack broker-acl`, and all of edgepack under what it writes, at a real mosquitto."""

import json
import re
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from support.agent_process import AgentProcess, running, wait_until
from support.brokers import LOOPBACK, Mosquitto, mosquitto_binary
from support.brokers import running as running_broker

from edgepack.trust import GeneratedKeys, Root
from edgepack.wire import DeviceTopics

PAGE = Path(__file__).parents[2] / "docs" / "mqtt.md"
PREFIX = "plant/a"
PLAN = ["--prefix", PREFIX, "--operators", "anna", "--applications", "shop", "--technicians", ""]
SENSORS = ["--read", "act/+/valve", "--read", "z", "--write", "act/{device}/#"]
DEVICES = ["--devices", "d1,d2", "--device-user", "edge-{device}"]
SHORT = "[probation]\nrequests = 5\nseconds = 0.3\n"


def test_the_docs_show_what_it_prints(edgepack):
    """Without options, word for word."""
    (shown,) = re.findall(r"```acl\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown == edgepack("broker-acl").out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--operators", "a,b", "--viewers", "b"], "user 'b' must have one role, got two"),
        (["--operators", "a b"], "user must match"),
        (["--device-user", "edge"], "must have {device} in it"),
        (["--device-user", "edge-{device}"], "devices must be named"),
        (["--devices", "blob"], "reserved"),
        (["--prefix", "a/+"], "prefix must be"),
        (["--read", "a/#/b"], "topic filter must be like a/+/b or a/#, got 'a/#/b'"),
        (["--write", ""], "topic filter must be like"),
        (["--read", "a\nuser x"], "must be one printable line"),
        (["--read", " a"], "must be one printable line"),
        (["--read", "$share/g/a"], "must stand without $share/GROUP/"),
        (["--write", "a/%c"], "must have no %, got 'a/%c'"),
        (["--write", "a/x-{device}"], "{device} must be all of a level"),
        (["--write", "#"], "topic to write must stand beside edgepack/v1/#, got '#'"),
        (["--write", "edgepack/v1/{device}/in/desired"], "topic to write must stand beside"),
        (["--read", "edgepack/+/press-7/#"], "topic to read must stand beside edgepack/v1/+/in/#"),
    ],
)
def test_what_makes_no_rules_is_told(edgepack, options, expected):
    """One line, and the code of wrong usage."""
    ended = edgepack("broker-acl", *options)
    assert (2, True) == (ended.code, expected in ended.err), ended.err


def test_what_inputs_read_and_actions_publish_goes_to_every_device(edgepack):
    """Patterns for devices that are not named, their ids for those that are."""
    extra = ["--read", "z/#", "--read", "z/#", "--write", "plant/{device}/alarm"]
    everyone = edgepack("broker-acl", *extra).out.splitlines()
    assert ["pattern read z/#", "pattern write plant/%u/alarm"] == everyone[-2:]
    named = edgepack("broker-acl", *DEVICES, *extra).out
    for device in ("d1", "d2"):
        expected = f"blob/#\ntopic read z/#\ntopic write plant/{device}/alarm\n"
        assert expected in named.partition(f"user edge-{device}\n")[2].partition("\n\n")[0] + "\n"


def test_settings_name_the_rules_and_how_users_are_known(edgepack, tmp_path):
    """Passwords or certificates; both files say where the other is."""
    edgepack("broker-acl", "-o", tmp_path, "--certificates")
    written = (tmp_path / "edgepack.conf").read_text()
    assert f"acl_file {tmp_path}/edgepack.acl" in written
    assert "use_identity_as_username true" in written
    assert "password_file" not in written
    assert "password_file" in edgepack("broker-acl", "--conf").out
    assert ["operator"] == json.loads(
        edgepack(
            "broker-acl", "--json", "--applications", "", "--technicians", "", "--viewers", ""
        ).out
    )["users"]


@pytest.fixture
def guarded(edgepack, tmp_path):
    """A mosquitto with the settings and the rules that the command wrote, and passwords."""
    mosquitto_binary()  # skips where there is none
    folder = tmp_path / "broker"
    ended = edgepack("broker-acl", "-o", folder, *PLAN, *DEVICES, *SENSORS)
    assert 0 == ended.code, ended.err
    passwords = folder / "passwords"
    passwords.touch(0o600)
    for user in ("anna", "shop", "viewer", "edge-d1", "edge-d2"):
        subprocess.run(
            ["mosquitto_passwd", "-b", passwords, user, f"of {user}"],
            check=True,
            capture_output=True,
        )
    settings = (folder / "edgepack.conf").read_text()
    settings = settings.replace("/etc/mosquitto/edgepack.passwd", str(passwords))
    settings = settings.replace("/var/lib/mosquitto/", f"{folder}/")
    with running_broker(Mosquitto(folder, extra=settings)) as broker:
        yield broker


class Client:
    """A user at the broker who remembers the last that came on each topic."""

    def __init__(self, broker, user):
        self._heard = {}
        self._subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(user, f"of {user}")
        self._client.on_message = lambda _c, _u, m: self._heard.update({m.topic: m.payload})
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect(LOOPBACK, broker.port)
        self._client.loop_start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()

    def listen(self, topics):
        self._subscribed.clear()
        self._client.subscribe(topics, 1)
        assert self._subscribed.wait(20)

    def say(self, topic, payload):
        self._client.publish(topic, payload, qos=1).wait_for_publish(20)

    def heard(self, topic):
        return self._heard.get(topic, b"")

    def everything(self):
        return dict(self._heard)


def url(broker, user):
    return f"mqtt://{user}:of%20{user}@{LOOPBACK}:{broker.port}"


@pytest.fixture
def agent(tmp_path, keys, guarded):
    """Device d1, with the password of its own user."""
    secret = tmp_path / "secret"
    secret.write_text("of edge-d1\n")
    files = GeneratedKeys(
        root_key=keys / "root.key",
        release_key=keys / "release.key",
        deploy_key=keys / "deploy.key",
        root_json=keys / "root.json",
        root=Root.load(keys / "root.json"),
    )
    made = AgentProcess(
        tmp_path / "device",
        files,
        guarded.port,
        probation=SHORT,
        top=f'prefix = "{PREFIX}"\n',
        broker=f'[broker]\nurl = "mqtt://{LOOPBACK}:{guarded.port}"\n'
        f'username = "edge-d1"\npassword_file = "{secret}"\n',
    )
    with running(made):
        yield made


def test_all_of_edgepack_works_under_the_rules(edgepack, keys, bundle, agent, guarded):
    """Deploy, confirm, ask, watch and audit; an application may not deploy."""
    options = ["--prefix", PREFIX, "--broker", url(guarded, "anna")]
    deployed = edgepack(
        "deploy", bundle, *options, "--keys", keys, "--device", "d1", "--wait", "--timeout", "60"
    )
    assert 0 == deployed.code, deployed.err
    seen = edgepack("watch", "--once", "--json", *options[:2], "--broker", url(guarded, "viewer"))
    assert ("d1", "confirmed") == (seen.document["device"], seen.document["phase"])
    topics = DeviceTopics(PREFIX, "d1")
    with Client(guarded, "shop") as shop:
        shop.listen(f"{topics.base}/out/#")
        shop.say(topics.infer("tiny"), b'{"x": [1.0, 2.0, 3.0, 4.0], "request_id": "r1"}')
        wait_until(lambda: b'"r1"' in shop.heard(topics.prediction("tiny")), "an answer")
    proven = edgepack(
        "audit", "verify", "--device", "d1", *options, "--root", keys / "root.json", "--json"
    )
    assert 0 == proven.code, proven.err
    forbidden = edgepack(
        *["deploy", bundle, "--prefix", PREFIX, "--broker", url(guarded, "shop")],
        *["--keys", keys, "--device", "d1"],
    )
    assert 7 == forbidden.code, forbidden.err


def test_a_device_writes_and_reads_nothing_else(guarded):
    """Not another's reports, requests, blobs or desired state; and it hears nothing of another."""
    one, two = DeviceTopics(PREFIX, "d1"), DeviceTopics(PREFIX, "d2")
    blob = f"{PREFIX}/blob/{'ab' * 32}/0"
    forbidden = [one.status, one.desired, two.desired, one.infer("m"), two.infer("m"), blob, "x"]
    with Client(guarded, "anna") as anna, Client(guarded, "edge-d2") as thief:
        thief.listen("#")
        anna.listen(f"{PREFIX}/#")
        for topic in forbidden:
            thief.say(topic, b"stolen")
        for topic in (one.desired, one.infer("m"), one.command("install")):
            anna.say(topic, b"for d1")
        anna.say(two.desired, b"for d2")
        thief.say(two.reported, b"of d2")
        wait_until(lambda: b"of d2" in anna.heard(two.reported), "what a device may say")
        wait_until(lambda: b"for d2" in thief.heard(two.desired), "what is for a device")
        assert {two.desired: b"for d2"} == thief.everything()
        assert b"stolen" not in b"".join(anna.everything().values())


def test_a_device_reads_what_inputs_and_writes_what_actions_may(guarded):
    """What was named for it, and no more: not what is another device's, not what is read only."""
    with Client(guarded, "edge-d1") as one, Client(guarded, "edge-d2") as two:
        two.listen("#")
        for topic in ("act/d2/valve", "act/d1/x/y", "z", f"{PREFIX}/d2/out/x", "act/d1/valve"):
            one.say(topic, b"by d1")
        wait_until(lambda: "act/d1/valve" in two.everything(), "what an action publishes")
        assert {"act/d1/valve": b"by d1"} == two.everything()
