"""What `edgepack setup` reads and decides before anything is changed."""

import base64
import json
import tomllib

import pytest

from edgepack.agent.main import main as agent_main
from edgepack.fleet.setup.agent_toml import agent_toml
from edgepack.fleet.setup.decide import (
    clock_note,
    platform_of,
    python_note,
    shortcomings,
    space_shortcoming,
)
from edgepack.fleet.setup.errors import HostNameError, ReachError, SettingsError, UnfitError
from edgepack.fleet.setup.hosts import Host, parse_host, parse_hosts
from edgepack.fleet.setup.options import Wanted
from edgepack.fleet.setup.own_wheel import own_wheel
from edgepack.fleet.setup.probe import Facts, RemotePython, parse_probe
from edgepack.fleet.setup.secret_files import SecretFiles, SecretSource
from edgepack.fleet.setup.stick import parse_platform
from edgepack.fleet.setup.wheels import pip_words, release_name

PYTHON = RemotePython(path="/usr/bin/python3", version=(3, 11, 2), machine="aarch64", glibc=(2, 36))


def facts(**changes) -> Facts:
    """A Raspberry Pi that has all it needs."""
    known = {
        "root": "sudo",
        "system": "Linux",
        "host_name": "press-7",
        "clock_s": 1000,
        "distribution": "Debian GNU/Linux 12 (bookworm)",
        "has_systemd": True,
        "opt_free_kb": 10**7,
        "tmp_free_kb": 10**7,
        "python": PYTHON,
    }
    return Facts(**(known | changes))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("press-7", Host(user=None, name="press-7")),
        ("pi@press-7.plant.example", Host(user="pi", name="press-7.plant.example")),
        ("pi@192.0.2.7", Host(user="pi", name="192.0.2.7")),
        ("root@[2001:db8::7]", Host(user="root", name="2001:db8::7")),
        ("fe80::1%eth0", Host(user=None, name="fe80::1%eth0")),
    ],
)
def test_hosts(text, host):
    """`[USER@]HOST` in all its forms."""
    assert host == parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=touch${IFS}x",
        "pi@-oProxyCommand=x",
        "-lroot@press-7",
        "pi@",
        "@press-7",
        "",
        "press 7",
        "press;reboot",
        "$(reboot)",
        "`reboot`@press-7",
        "press-7/../..",
        "press-7\nreboot",
        "press-7'",
        "a@b@c",
        "pi:secret@press-7",
        "%h",
    ],
)
def test_what_is_no_host(text):
    """Neither an option of ssh nor anything that a shell takes apart goes any further."""
    with pytest.raises(HostNameError):
        parse_host(text)


def test_a_host_is_named_once():
    """Two at a time would be in each other's way."""
    with pytest.raises(HostNameError, match="pi@press-7 again"):
        parse_hosts(["pi@press-7", "press-8", "pi@press-7"])


def probe_text(**changes: str | None) -> str:
    """What the script prints on a Raspberry Pi."""
    python = {
        "path": "/usr/bin/python3",
        "version": [3, 11, 2],
        "bits": 32,
        "implementation": "cpython",
        "libc": "glibc 2.36",
        "packages": {"numpy": "1.24.2"},
        "venv": True,
    }
    lines = {
        "root": "sudo",
        "machine": "aarch64",
        "system": "Linux",
        "host_name": "press-7",
        "clock_s": "1000",
        "opt_free_kb": "7",
        "tmp_free_kb": "8",
        "agent_toml": base64.b64encode(b'root = "r"\n').decode(),
        "python": json.dumps(python),
        "end": "yes",
    } | changes
    return "".join(f"{name}\t{value}\n" for name, value in lines.items() if value is not None)


def test_a_look_at_a_host():
    """A 32-bit Python on a 64-bit kernel needs the wheels of 32-bit ARM."""
    found = parse_probe(probe_text())
    assert ("armv7l", (2, 36)) == (found.python.machine, found.python.glibc)
    assert (b'root = "r"\n', None, 7) == (found.agent_toml, found.root_json, found.opt_free_kb)


@pytest.mark.parametrize(
    "changes",
    [
        {"end": None},
        {"clock_s": "soon"},
        {"root": None},
        {"agent_toml": "***"},
        {"python": "{}"},
        {"python": "[]"},
        {"python": '{"version": 3}'},
    ],
)
def test_a_look_that_makes_no_sense(changes):
    """A login shell that prints other things is told as that."""
    with pytest.raises(ReachError):
        parse_probe(probe_text(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"root": "password"}, ["sudo asks for a password"]),
        ({"root": "refused"}, ["sudo there does not take the password"]),
        ({"root": "missing", "has_systemd": False}, ["neither root nor sudo", "systemd"]),
        ({"system": "Darwin"}, ["for Linux, got Darwin"]),
        ({"python": None}, ["Python 3.11 or later is needed, got none (Debian"]),
        ({"lacks": ("tar",)}, ["missing there: tar"]),
        ({"is_undecided": True}, ["interrupted upgrade"]),
    ],
)
def test_what_keeps_an_agent_from_a_host(changes, said):
    """All of it at once, a line each."""
    wrong = shortcomings(facts(**changes), needs_systemd=True)
    assert [True] * len(said) == [part in line for part, line in zip(said, wrong, strict=True)], (
        wrong
    )


def python(**changes) -> RemotePython:
    known = {"path": "p", "version": (3, 11, 2), "machine": "aarch64", "glibc": (2, 36)}
    return RemotePython(**(known | changes))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (python(version=(3, 9, 2)), "3.11 or later is needed, got 3.9.2"),
        (python(implementation="pypy"), "CPython"),
        (python(has_venv=False), "python3-venv"),
        (python(machine="armv7l"), "apt-get install python3-numpy python3-cryptography"),
        (python(machine="armv7l", packages={"numpy": "1.24"}), "install python3-cryptography"),
    ],
)
def test_a_python_that_does_not_do(found, said):
    """With what mends it."""
    (line,) = shortcomings(facts(python=found), needs_systemd=True)
    assert said in line


def test_platforms():
    """The engine follows from the processor; wheels may be older than the C library, not newer."""
    platform = platform_of(PYTHON)
    assert ("onnxruntime",) == platform.engines
    assert "manylinux_2_36_aarch64" == platform.tags[0]
    assert {"manylinux_2_28_aarch64", "manylinux2014_aarch64"} < set(platform.tags)
    assert "manylinux_2_37_aarch64" not in platform.tags
    assert ("tflite-runtime",) == platform_of(python(machine="armv7l")).engines
    assert ("ai-edge-litert",) == platform_of(PYTHON, ["ai-edge-litert"]).engines
    assert platform == parse_platform("aarch64:3.11:2.36")


@pytest.mark.parametrize("changes", [{"glibc": None}, {"machine": "riscv64"}])
def test_platforms_without_engines(changes):
    """They are refused before anything is downloaded."""
    with pytest.raises(UnfitError):
        platform_of(python(**changes))


@pytest.mark.parametrize("text", ["aarch64", "aarch64:2.7", "../x:3.11", "aarch64:3.11:1.0"])
def test_what_is_no_platform(text):
    """It says how one looks."""
    with pytest.raises(SettingsError, match=r"aarch64:3\.11:2\.36"):
        parse_platform(text)


def test_pip_on_32_bit_arm_leaves_out_what_debian_has(tmp_path):
    """Numpy and cryptography come from the device's own packages; nothing else is left out."""
    own = tmp_path / "own.whl"
    words = pip_words(platform_of(python(machine="armv7l")), own, tmp_path)
    wanted = words[words.index("--no-deps") + 1 :]
    assert [str(own), "tflite-runtime>=2.14", "pip"] == [wanted[0], *wanted[-2:]]
    names = {word.partition(">")[0] for word in wanted}
    assert {"paho-mqtt", "aiomqtt"} < names
    assert set() == names & {"numpy", "cryptography", "onnx"}
    plain = pip_words(platform_of(PYTHON, ["tflite-runtime"]), own, tmp_path)
    assert "--no-deps" not in plain
    assert "numpy<2" in plain


def test_a_python_in_a_home_folder():
    """The service would not see it: a note says so."""
    assert "" == python_note(PYTHON)
    assert "ProtectHome" in python_note(python(path="/home/pi/.pyenv/bin/python3"))


def test_space():
    """What is missing is named by its folder."""
    assert "" == space_shortcoming(facts(), 50 * 2**20)
    short = space_shortcoming(facts(opt_free_kb=1024), 50 * 2**20)
    assert "/opt/edgepack needs 282 MB free, got 1" == short


@pytest.mark.parametrize(
    ("clock_s", "said"),
    [(1000, ""), (1299, ""), (1600, "10 minutes ahead"), (1000 - 4 * 86400, "4.0 days behind")],
)
def test_a_clock_that_is_off(clock_s, said):
    """It is a note: the device can be mended later."""
    note = clock_note(facts(clock_s=clock_s), 1000)
    assert (bool(said), True) == (bool(note), said in note)


def test_a_new_agent_toml():
    """What was asked for, and nothing that has a default; a password's user is the device."""
    wanted = Wanted(broker="mqtts://b:8883", tags={"line": 'a "b"'})
    files = SecretFiles(password=b"s3cret", ca=b"pem")
    new = agent_toml(None, wanted, files, default_device="press-7-abc")
    assert "press-7-abc" == new.device
    assert (
        'device = "press-7-abc"\nroot = "root.json"\n\n[tags]\nline = "a \\"b\\""\n\n[broker]\n'
        'url = "mqtts://b:8883"\nusername = "press-7-abc"\npassword_file = "mqtt-password"\n'
        'ca_file = "broker-ca.pem"\n\n[http]\nlisten = "127.0.0.1:8080"\n'
    ) == new.text.partition("\n")[2]
    assert ("device", "root", "tags.line", "broker.url") == new.changed[:4]


OLD = """# ours
device = "old-id"
root = "root.json"  # keep

[broker]
url = "mqtt://a"   # the old hall
keepalive_s = 77

[predictions]
publish = "all"
"""


def test_an_agent_toml_that_is_there_keeps_what_nobody_named():
    """Comments, order, the id and other keys stay; what changed is told."""
    same = agent_toml(OLD.encode(), Wanted(broker="mqtt://a"), SecretFiles(), default_device="x")
    assert (OLD, (), "old-id") == (same.text, same.changed, same.device)
    wanted = Wanted(broker="mqtt://b", tags={"line": "a"}, device="old-id")
    new = agent_toml(OLD.encode(), wanted, SecretFiles(), default_device="x")
    assert ("tags.line", "broker.url") == new.changed
    assert OLD.replace("mqtt://a", "mqtt://b") + '\n[tags]\nline = "a"\n' == new.text


def test_where_http_is_served():
    """Loopback on a new device; on another one what it says, unless somebody names a place."""

    def http(old, place):
        new = agent_toml(old, Wanted(http=place), SecretFiles(), default_device="x")
        return tomllib.loads(new.text).get("http"), new.changed

    assert {"listen": "127.0.0.1:8080"} == http(None, None)[0]
    assert {"listen": "127.0.0.1:81"} == http(None, "127.0.0.1:81")[0]
    assert None is http(None, "")[0]
    assert (None, ()) == http(OLD.encode(), None)
    assert ({"listen": "127.0.0.1:81"}, ("http.listen",)) == http(OLD.encode(), "127.0.0.1:81")
    here = OLD.encode() + b'[http]\nsocket = "s"\nlisten = "127.0.0.1:81"\n'
    assert ({"socket": "s", "listen": "127.0.0.1:81"}, ()) == http(here, None)
    assert ({"socket": "s"}, ("http.listen",)) == http(here, "")


def test_setup_and_init_write_the_same_file(tmp_path, keys):
    """Who sets a device up does not matter: one writer, and the agent takes it."""
    root, config = keys.files.root_json, tmp_path / "agent.toml"
    words = ["--config", config, "--root", root, "--broker", "mqtts://b", "--id", "x"]
    words += ["--tag", "line=a", "--prefix", "plant/a", "--password-file", "/etc/p"]
    assert 0 == agent_main(["init", *map(str, words)])
    wanted = Wanted(device="x", prefix="plant/a", tags={"line": "a"}, broker="mqtts://b")
    files = SecretFiles(password=b"s3cret")
    ours = agent_toml(None, wanted, files, default_device=None).text
    assert ours.replace('"mqtt-password"', '"/etc/p"') == config.read_text()


def test_a_device_keeps_its_id():
    """Another id would be another device."""
    with pytest.raises(SettingsError, match="old-id"):
        agent_toml(OLD.encode(), Wanted(device="new"), SecretFiles(), default_device="x")


@pytest.mark.parametrize("old", [b"= no", b"\xff", b'broker = "b"\n', b"tags = 3\n"])
def test_an_agent_toml_that_is_none(old):
    """It is left alone, and told."""
    with pytest.raises(SettingsError, match="on the host"):
        agent_toml(old, Wanted(broker="mqtt://b"), SecretFiles(), default_device="x")


def test_secrets_are_read_for_each_host(tmp_path):
    """`{host}` and `{id}` in a path; only the first line is the password; none of it is shown."""
    (tmp_path / "press-7.pw").write_text("s3cret\nsecond line\n")
    source = SecretSource(password_file=str(tmp_path / "{host}.pw"))
    read = source.read(host="press-7", device="d")
    assert b"s3cret" == read.password
    assert "s3cret" not in repr(read)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match="must not be empty"):
        SecretSource(password_file=str(tmp_path / "empty")).read(host="h", device="d")
    with pytest.raises(SettingsError, match="nobody"):
        SecretSource(ca_file=str(tmp_path / "nobody")).read(host="h", device="d")


def test_the_password_that_sudo_is_told(tmp_path):
    """One line for each host or all; an empty one would look like none, and is refused."""
    (tmp_path / "press-7").write_bytes("pässword\r\nmore\n".encode())
    source = SecretSource(sudo_password_file=str(tmp_path / "{host}"))
    assert "pässword" == source.sudo(host="press-7")
    with pytest.raises(SettingsError, match="press-8 cannot be read"):
        source.sudo(host="press-8")
    assert None is SecretSource().sudo(host="h")
    assert "s3cret" not in repr(SecretSource(sudo_password="s3cret"))
    for wrong in ("", "a\0b"):
        with pytest.raises(SettingsError, match="must not be empty"):
            SecretSource(sudo_password=wrong).sudo(host="h")


def test_our_own_wheel_is_the_same_every_time():
    """The same files give the same bytes: devices that are alike get one release."""
    name, data = own_wheel()
    assert (name, data) == own_wheel()
    assert name.startswith("edgepack-") and name.endswith("-py3-none-any.whl")


def test_pip_itself_makes_no_other_release(tmp_path):
    """It is a tool; every other wheel and every requirement counts."""
    paths = [tmp_path / name for name in ("a-1.whl", "pip-1.whl")]
    for path in paths:
        path.write_bytes(b"1")
    first = release_name("1.0", paths, ["a"])
    paths[1].write_bytes(b"2")
    assert first == release_name("1.0", paths, ["a"])
    assert first != release_name("1.0", paths, ["b"])
    paths[0].write_bytes(b"2")
    assert first != release_name("1.0", paths, ["a"])
    assert first.startswith("1.0-")
