"""deploy, remove, rollback, watch and broker, as a person calls them."""

import asyncio
import json
import os
import signal
from dataclasses import replace

import pytest
from support.fake_device import FakeDevice, in_background
from support.tiny_bundle import write_tiny_bundle

from edgepack.bundle import open_bundle
from edgepack.cli import watch as watch_module
from edgepack.fleet import BrokerError, BrokerUrl, connect
from edgepack.fleet.watch import Row
from edgepack.trust import PrivateKey


@pytest.fixture
def common(broker, prefix, keys):
    """The flags that say where and who."""
    return ["--broker", broker.url, "--prefix", prefix, "--keys", keys]


@pytest.fixture
def second(tmp_path, keys):
    """The next version of the bundle."""
    key = PrivateKey.load(keys / "release.key")
    return write_tiny_bundle(tmp_path, version="1.1.0", seed=1, key=key, sequence=101)


def test_the_life_of_a_model(edgepack, bundle, second, broker, prefix, common):
    """Deploy, upgrade, look, roll back and remove, each with exit code 0 and a result."""
    one = [*common, "--device", "dev-1", "--wait", "--timeout", "20"]
    with in_background(FakeDevice(broker.url, prefix)):
        first = edgepack("deploy", bundle, *one)
        assert (0, "tiny 1.0.0: 1 device") == (first.code, first.out.partition(",")[0])
        assert "dev-1: confirmed" in first.err
        upgraded = edgepack("deploy", second, *one, "--json")
        assert (0, {"dev-1": 2}) == (upgraded.code, upgraded.document["generations"])
        assert open_bundle(second).digest == upgraded.document["digest"]
        assert ["done"] == [device["verdict"] for device in upgraded.document["devices"]]
        watched = edgepack("watch", *common[:4], "--once")
        assert ["dev-1", "online", "tiny", "1.1.0"] == watched.out.splitlines()[1].split()[:4]
        back = edgepack("rollback", "tiny", *one)
        assert (0, True) == (back.code, back.out.startswith("tiny 1.0.0: 1 device"))
        gone = edgepack("remove", "tiny", *one)
        assert (0, True) == (gone.code, gone.out.startswith("tiny removed: 1 device"))
        row = edgepack("watch", *common[:4], "--once", "--json").document
        assert {"device": "dev-1", "status": "online", "held": False} == row


def test_a_refusal_ends_with_8(edgepack, bundle, broker, prefix, common):
    """A device's rejection is told with its reason, on the result and in the exit code."""
    rejects = {open_bundle(bundle).digest: "self_test_failed"}
    with in_background(FakeDevice(broker.url, prefix, rejects=rejects)):
        ended = edgepack("deploy", bundle, *common, "--all", "--wait", "--timeout", "20", "--json")
    assert 8 == ended.code
    assert "self_test_failed" == ended.document["devices"][0]["reason"]
    assert "dev-1 rejected (self_test_failed)" in ended.err


def test_a_device_that_is_away_ends_with_7(edgepack, bundle, common):
    """Waiting for nobody ends in time, with a hint that the wish stays."""
    ended = edgepack("deploy", bundle, *common, "--device", "d", "--wait", "--timeout", "0.5")
    assert 7 == ended.code
    assert "not done after 0.5 s: d (waiting, never seen)" in ended.err
    assert "hint: the desired state stays on the broker" in ended.err


def test_without_wait_the_wish_is_written_and_that_is_all(edgepack, bundle, common):
    """Without --wait the command ends at once and says that nobody was waited for."""
    ended = edgepack("deploy", bundle, *common, "--device", "d")
    assert 0 == ended.code
    assert "d: generation 1, told; not waited for" in ended.out
    assert "d: never seen" in ended.err


def test_a_stranger_is_refused_before_anything_is_sent(edgepack, bundle, common, tmp_path):
    """A bundle that the root does not trust ends with 5, unless devices shall decide."""
    edgepack("keygen", tmp_path / "others")
    others = [*common[:4], "--keys", tmp_path / "others", "--device", "d"]
    assert 5 == edgepack("deploy", bundle, *others).code
    assert 0 == edgepack("deploy", bundle, *others, "--no-verify").code


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--device", "a", "--all"],
        ["--device", "bad id"],
        ["--tag", "novalue"],
        ["--all", "--replace", "--keep-reported"],
        ["--all", "--timeout", "0"],
        ["--all", "--expires", "-1"],
        ["--all", "--floor", "1000"],
        ["--all", "--via", "ftp://x"],
        ["--all", "--prefix", "a/+/b"],
        ["--all", "--broker", "nonsense"],
    ],
)
def test_wrong_flags_end_with_2(edgepack, bundle, mosquitto, prefix, keys, flags):
    """What contradicts itself or is malformed is refused."""
    common = ["--broker", mosquitto.url, "--prefix", prefix, "--keys", keys]
    ended = edgepack("deploy", bundle, *common, *flags)
    assert (2, "error: ") == (ended.code, ended.err[10:17])


def test_no_broker_ends_with_7_and_a_hint(edgepack, bundle, keys):
    """A broker that is not there is told with the command that starts one."""
    ended = edgepack(
        "deploy", bundle, "--broker", "mqtt://u:secret@127.0.0.1:1", "--keys", keys, "--device", "d"
    )
    assert 7 == ended.code
    assert "cannot reach the broker mqtt://u@127.0.0.1:1" in ended.err
    assert "`edgepack broker`" in ended.err
    assert "secret" not in ended.err


def test_watch_prints_a_line_of_json_for_every_change(process, broker, prefix):
    """Each line is one object about one model of one device."""
    running = process("watch", "--broker", broker.url, "--prefix", prefix, "--json")
    with in_background(FakeDevice(broker.url, prefix)):
        lines = [json.loads(running.stdout.readline())]
        while lines[-1]["status"] != "online":
            lines.append(json.loads(running.stdout.readline()))
    while lines[-1]["status"] != "offline":
        lines.append(json.loads(running.stdout.readline()))
    assert {"dev-1"} == {line["device"] for line in lines}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_broker_says_where_it_listens_and_stops_when_told(process, number):
    """With port 0 it prints the port that it got, and both signals end it with 0."""
    running = process("broker", "--port", "0", "--json")
    place = json.loads(running.stdout.readline())
    assert "127.0.0.1" == place["host"]

    async def visit():
        async with connect(BrokerUrl(host=place["host"], port=place["port"])):
            running.send_signal(number)
            assert 0 == await asyncio.to_thread(running.wait, 10)

    asyncio.run(visit())
    assert "" == running.stderr.read()


def test_a_broker_for_others_warns_and_has_a_password(process):
    """Listening on all addresses prints a warning and a password that is needed to connect."""
    running = process("broker", "--listen", "0.0.0.0", "--port", "0", "--json")
    place = json.loads(running.stdout.readline())
    assert running.stderr.readline().startswith("warning: everybody who can reach 0.0.0.0")

    async def visit(**who):
        async with connect(BrokerUrl(host="127.0.0.1", port=place["port"], **who)):
            return True

    assert asyncio.run(visit(username=place["username"], password=place["password"]))
    with pytest.raises(BrokerError, match="refuses the user name or password"):
        asyncio.run(visit())
    assert len(place["password"]) >= 20


def test_a_taken_port_ends_with_7(edgepack, embedded_broker):
    """A port that is in use is one line."""
    ended = edgepack("broker", "--port", embedded_broker.port)
    assert (7, 1) == (ended.code, len(ended.err.splitlines()))
    assert "in use" in ended.err


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_the_live_table_is_drawn_on_a_terminal(process, broker, prefix, monkeypatch):
    """On a terminal watch draws a table with the devices, and Ctrl-C ends it."""
    import pty

    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    main, terminal = pty.openpty()
    running = process(
        "watch", "--broker", broker.url, "--prefix", prefix, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    with in_background(FakeDevice(broker.url, prefix)):
        shown = read_until(main, b"dev-1", b"online", b"QUALITY")
    running.send_signal(signal.SIGINT)
    read_until(main, b"interrupted")
    assert 130 == running.wait(10)
    os.close(main)
    assert "connection lost" not in shown


def read_until(terminal, *wanted, timeout_s=20.0):
    """What a terminal shows until it has shown all of that."""
    import select
    import time

    shown, deadline = b"", time.monotonic() + timeout_s
    while not all(word in shown for word in wanted):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"not shown in {timeout_s:g} s: {wanted}, got {shown[-2000:]!r}"
        shown += os.read(terminal, 4096)
    return shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (200, len(watch_module._HEAD)),
        (80, len(("DEVICE", "STATUS", "MODEL", "VERSION", "PHASE", "QUALITY"))),
        (20, len(("DEVICE", "STATUS", "MODEL", "VERSION", "PHASE"))),
    ],
)
def test_a_narrow_terminal_shows_what_matters_most(width, expected):
    """Columns are left out, least important first, and never device, status, model or phase."""
    row = Row(device="press-7", status="online", model="digits", version="1.0.0", accuracy=0.97)
    row = replace(row, accuracy_low=0.9, accuracy_high=0.99, phase="confirmed")
    columns = watch_module.fitting([watch_module.cells(row, 0.0)], width)
    assert expected == len(columns)
    assert [0, 1, 2, 3] == columns[:4]
    names = [watch_module._HEAD[index] for index in columns]
    assert "PHASE" in names
