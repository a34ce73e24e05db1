"""`edgepack-agent doctor`: each harm has its line, and the line says what to mend."""

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.agent_process import AGENT, AgentProcess, Operator, running, wait_until
from support.brokers import Mosquitto, mosquitto_binary
from support.installed_device import InstalledDevice
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.doctor import machine, models
from edgepack.agent.doctor.broker import check_broker
from edgepack.agent.doctor.examine import CHECKS, examine
from edgepack.agent.doctor.files import check_permissions
from edgepack.agent.doctor.finding import Level
from edgepack.agent.doctor.trial import try_engine
from edgepack.agent.doctor.trust import check_trust
from edgepack.agent.main import main
from edgepack.runtime.engines import engine_names
from edgepack.trust import PrivateKey, keygen
from edgepack.wire.installation import Installation
from edgepack.wire.messages import Info, render_info

YEARS_S = 365 * 24 * 3600


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A device that serves a model and has been stopped; its keys."""
    folder = tmp_path_factory.mktemp("doctor")
    keys = keygen(folder / "keys")
    agent = AgentProcess(folder / "device", keys, None)
    bundle = write_tiny_bundle(folder, key=PrivateKey.load(keys.release_key))
    assert 0 == agent.command("install", str(bundle)).returncode
    return agent, keys


@pytest.fixture
def device(prepared, tmp_path):
    """Its folder, to be harmed."""
    agent, _ = prepared
    shutil.copytree(agent.folder, tmp_path / "device", symlinks=True)
    config = tmp_path / "device/agent.toml"
    return SimpleNamespace(
        folder=tmp_path / "device", config=config, state=tmp_path / "device/state"
    )


def look(device, tmp_path, *checks, **options):
    """The findings of some checks, or of all."""
    checks = checks or CHECKS
    return list(examine(device.config, Installation(tmp_path), checks=checks, **options))


def found(findings, check):
    """The worst finding of a check."""
    of_check = [finding for finding in findings if finding.check == check]
    assert of_check, f"no {check} among {[f.check for f in findings]}"
    return max(of_check, key=lambda finding: list(Level).index(finding.level))


def assert_mends(findings, check, level, text, mend):
    """The check's worst line is of this level, says this, and tells to do that."""
    worst = found(findings, check)
    assert (level, True) == (worst.level, text in worst.text), worst
    assert mend in worst.mend


def add(device, text):
    with device.config.open("a") as file:
        file.write(text)


def test_a_device_in_order(device, tmp_path):
    """Nothing fails; that no agent runs is said."""
    findings = look(device, tmp_path)
    assert [] == [f for f in findings if f.level is Level.FAIL]
    assert ["agent"] == [f.check for f in findings if f.level is Level.WARN]
    assert "tiny 1.0.0 (onnx-fp32) answers its golden samples" == found(findings, "models").text
    assert all(bool(f.mend) == (f.level is not Level.OK) for f in findings)


def test_it_works_with_a_running_agent_and_leaves_nothing(prepared, own_broker, tmp_path):
    """Over a real broker: what the agent said is the same afterwards; also as JSON."""
    _, keys = prepared
    agent = AgentProcess(tmp_path / "live", keys, own_broker.port)
    bundle = write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key))
    operator = Operator(own_broker.port, keys)
    try:
        with running(agent):
            model = operator.upload(bundle)
            operator.desire(model)
            operator.wait_phase("confirmed")
            words = [*AGENT, "doctor", "--json", "--config", str(agent.config)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
            report = json.loads(done.stdout)
            assert (0, 0) == (done.returncode, report["failed"]), done.stdout
            lines = {(f["check"], f["text"]) for f in report["findings"]}
            assert {("rules", "out/ can be written"), ("rules", "in/ can be read")} <= lines
            statuses = {
                payload for topic, payload, _ in operator.messages if topic.endswith("/status")
            }
            assert statuses <= {b"online", b"offline"}
            assert [] == list((agent.folder / "state").glob(".doctor*"))
    finally:
        operator.close()


def test_a_configuration_that_cannot_be_read_ends_it(tmp_path, capsys):
    """One line, and exit code 6."""
    assert 6 == main(["doctor", "--config", str(tmp_path / "none.toml")])
    assert "fail  config" in capsys.readouterr().out


@pytest.mark.parametrize("years", [-60, +20])
def test_a_clock_that_cannot_be_right(device, tmp_path, years):
    """1970, or far in the future."""
    findings = look(
        device, tmp_path, machine.check_clock, now_s=lambda: time.time() + years * YEARS_S
    )
    assert_mends(findings, "clock", Level.FAIL, "says", "set it")


def test_a_disk_that_is_full_or_read_only(device, tmp_path, monkeypatch):
    """Space, inodes, and a mount that takes nothing."""
    real = os.statvfs(device.state)
    fields = {name: getattr(real, name) for name in ("f_bavail", "f_frsize", "f_files", "f_favail")}

    def statvfs(**changes):
        values = SimpleNamespace(**{**fields, "f_flag": 0, **changes})
        monkeypatch.setattr(machine.os, "statvfs", lambda _: values)
        return look(device, tmp_path, machine.check_disk)

    assert_mends(statvfs(f_bavail=1), "disk", Level.FAIL, "0 MB free", "make room")
    few = statvfs(f_bavail=50_000_000, f_frsize=1)
    assert_mends(few, "disk", Level.WARN, "50 MB free", "make room")
    none = statvfs(f_files=1000, f_favail=0)
    assert_mends(none, "inodes", Level.FAIL, "0 free", "delete")
    read_only = statvfs(f_flag=os.ST_RDONLY)
    assert_mends(read_only, "disk", Level.FAIL, "mounted read-only", "mount it writable")


def test_files_that_others_may_read_and_files_of_others(device, tmp_path):
    """The state folder, the device's key, the password."""
    device.state.chmod(0o755)
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o644)
    add(device, f'[broker]\npassword_file = "{password}"\n')
    findings = look(device, tmp_path, check_permissions)
    texts = [f.text for f in findings if f.check == "permissions"]
    assert 2 == len(texts)
    assert "mode 0755: other users see into it" in texts[0]
    assert f"password_file {password} can be read by every user" == texts[1]
    password.unlink()
    assert_mends(
        look(device, tmp_path, check_permissions),
        "permissions",
        Level.FAIL,
        "No such file",
        "put it there",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_that_another_user_left_in_the_state_folder(device, tmp_path):
    """Somebody ran the agent as root."""
    for path in (device.state, *device.state.rglob("*")):
        os.chown(path, 65534, 65534)
    os.chown(device.state / "agent.db", 0, 0)
    device.config.chmod(0o600)
    findings = look(device, tmp_path, check_permissions)
    mends = [f.mend for f in findings if f.check == "permissions"]
    assert any("chown -R" in mend for mend in mends)
    assert any(f"chmod g+r {device.config}" in mend for mend in mends)


def test_a_model_whose_file_is_damaged(device, tmp_path):
    """Found by its digest, before anything runs it."""
    blobs = sorted((device.state / "store/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    blobs[-1].chmod(0o644)
    data = bytearray(blobs[-1].read_bytes())
    data[-1] ^= 1
    blobs[-1].write_bytes(data)
    findings = look(device, tmp_path, models.check_models)
    assert_mends(findings, "models", Level.FAIL, "is damaged", "it fetches the model anew")


def test_a_database_that_is_damaged(device, tmp_path):
    """It is said, and everything else is looked at all the same."""
    (device.state / "agent.db").write_bytes(b"no database at all" * 1000)
    findings = look(device, tmp_path, models.check_models, machine.check_clock)
    assert_mends(findings, "state", Level.FAIL, "damaged", "restart the agent")
    assert Level.OK is found(findings, "clock").level


def test_a_root_that_is_missing_or_another(device, tmp_path, prepared):
    """And a kept one that does not follow."""
    _, keys = prepared
    (device.state / "roots").mkdir(exist_ok=True)
    (device.state / "roots/root.2.json").write_bytes(keys.root_json.read_bytes())
    assert_mends(
        look(device, tmp_path, check_trust),
        "trust",
        Level.WARN,
        "does not follow",
        "edgepack root show",
    )
    device.config.write_text(device.config.read_text().replace(str(keys.root_json), "/none.json"))
    assert_mends(
        look(device, tmp_path, check_trust), "trust", Level.FAIL, "/none.json", "copy root.json"
    )


@pytest.mark.parametrize("name", engine_names())
def test_engines_compute(name):
    """Each engine that is installed here adds two numbers."""
    assert "" == try_engine(name)


@pytest.mark.parametrize(
    ("body", "said"),
    [("raise SystemExit('no such wheel')", "no such wheel"),
     ("import os; os.kill(os.getpid(), 4)", "crashed with signal 4"),
     ("import time; time.sleep(60)", "took over")],
)  # fmt: skip
def test_an_engine_that_crashes_or_hangs_is_found(tmp_path, device, monkeypatch, body, said):
    """In a process of its own."""
    (tmp_path / "bad_trial.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(models, "_MODULE", "bad_trial")
    if said == "took over":
        monkeypatch.setattr(models, "_ENGINE_TIMEOUT_S", 1.0)
    worst = max(models.check_engines(None), key=lambda f: f.level == Level.FAIL)
    assert (Level.FAIL, True) == (worst.level, said in worst.text), worst


def test_a_broker_that_cannot_be_reached(device, tmp_path):
    """No such name, nobody there, and a name that is no address."""
    add(device, '[broker]\nurl = "mqtt://127.0.0.1:1"\n')
    assert_mends(
        look(device, tmp_path, check_broker),
        "broker",
        Level.FAIL,
        "no connection",
        "is the broker running",
    )
    text = device.config.read_text()
    device.config.write_text(text.replace("127.0.0.1:1", "no-such-host.invalid"))
    assert_mends(
        look(device, tmp_path, check_broker), "broker", Level.FAIL, "is not found", "resolv.conf"
    )


@pytest.mark.broker
def test_logins_and_access_rules(device, tmp_path, prepared):
    """A wrong password, a user who may not write there, and one who may; also before the start."""
    passwd = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    mosquitto_binary()
    users = tmp_path / "users"
    users.touch(mode=0o600)
    for user in ("d1", "other"):
        subprocess.run([passwd, "-b", users, user, "right"], check=True, capture_output=True)
    rules = tmp_path / "rules"
    rules.write_text(
        "pattern write edgepack/v1/%u/out/#\npattern read edgepack/v1/%u/in/#\n"
        "pattern read edgepack/v1/%u/out/info\npattern read edgepack/v1/%u/out/status\n"
        "user other\ntopic read edgepack/v1/d1/#\n"
    )
    rules.chmod(0o600)
    extra = f"allow_anonymous false\npassword_file {users}\nacl_file {rules}"
    mosquitto = Mosquitto(tmp_path, extra=extra)
    mosquitto.start()
    try:
        password = tmp_path / "password"
        password.touch(mode=0o600)
        plain = device.config.read_text()
        for user, word, check, level, text, stands in [
            ("d1", "wrong", "broker", Level.FAIL, "lets d1 not in", False),
            ("d1", "right", "rules", Level.OK, "out/ can be written", False),
            ("other", "right", "rules", Level.FAIL, "out/ does not arrive", False),
            ("d1", "right", "rules", Level.OK, "out/ can be written", True),
            ("other", "right", "rules", Level.FAIL, "out/ does not arrive", True),
        ]:
            password.write_text(word)
            device.config.write_text(
                f'{plain}[broker]\nurl = "{mosquitto.url}"\nusername = "{user}"\n'
                f'password_file = "{password}"\n'
            )
            if stands:  # else it was never connected, or never got anything through
                retain_status(mosquitto.port)
            worst = found(look(device, tmp_path, check_broker), check)
            assert (level, True) == (worst.level, text in worst.text), worst
    finally:
        mosquitto.stop()


def retain_status(port):
    """As the device itself did when it was last connected."""
    import paho.mqtt.publish as publish

    publish.single(
        "edgepack/v1/d1/out/status", b"offline", qos=1, retain=True,
        hostname="127.0.0.1", port=port, auth={"username": "d1", "password": "right"},
    )  # fmt: skip


def test_another_device_with_this_id(device, tmp_path, own_broker):
    """Its `out/info` stands on the broker."""
    import paho.mqtt.publish as publish

    info = Info(device="d1", agent_version="1", instance="f" * 32)
    publish.single(
        "edgepack/v1/d1/out/info", render_info(info), qos=1, retain=True,
        hostname="127.0.0.1", port=own_broker.port,
    )  # fmt: skip
    add(device, f'[broker]\nurl = "{own_broker.url}"\n')
    findings = look(device, tmp_path, check_broker)
    assert_mends(
        findings, "duplicate", Level.FAIL, "installation ffffffff used", "another `device`"
    )


def write_certificate(folder, name, *, begins_s, ends_s):
    """A certificate that signs itself, and its key; times are seconds from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.DNSName(name)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=begins_s))
        .not_valid_after(now + timedelta(seconds=ends_s))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(private)
    (folder / "key.pem").chmod(0o600)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("name", "begins_s", "ends_s", "trusted", "text", "mend"),
    [
        ("localhost", -3600, 3600, False, "self-signed certificate", "ca_file"),
        ("localhost", -7200, -3600, True, "has expired", "renew the certificate"),
        ("localhost", 3600, 7200, True, "not yet valid", "renew the certificate"),
        ("other.example", -3600, 3600, True, "not valid for 'localhost'", "must name the broker"),
        ("localhost", -3600, 3600, True, "", ""),
    ],
)
def test_a_certificate_of_the_broker(device, tmp_path, name, begins_s, ends_s, trusted, text, mend):
    """Each reason has a remedy of its own."""
    write_certificate(tmp_path, name, begins_s=begins_s, ends_s=ends_s)
    files = f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem"
    mosquitto = Mosquitto(tmp_path, extra=f"allow_anonymous true\n{files}")
    mosquitto.start()
    try:
        ca_file = f'ca_file = "{tmp_path}/cert.pem"\n' if trusted else ""
        add(device, f'[broker]\nurl = "mqtts://localhost:{mosquitto.port}"\n{ca_file}')
        findings = look(device, tmp_path, check_broker)
    finally:
        mosquitto.stop()
    if text:
        assert_mends(findings, "broker", Level.FAIL, text, mend)
    else:
        assert "TLSv1.3" in found(findings, "broker").text


def test_a_service_and_its_releases(tmp_path, prepared):
    """The unit of another version, a unit that is not enabled, an upgrade that was interrupted."""
    _, keys = prepared
    here = InstalledDevice(tmp_path / "root", keys)
    here.installation.unit.write_text("[Service]\n")
    (here.installation.base / "upgrade.json").write_text("{}")
    done = here.command("doctor", "--json", "--prefix", str(here.prefix))
    findings = json.loads(done.stdout)["findings"]
    lines = {(f["check"], f["level"]) for f in findings}
    assert {("service", "warn"), ("service", "fail"), ("upgrade", "warn")} <= lines
    assert 6 == done.returncode
    (mend,) = [f["mend"] for f in findings if "is not this version's" in f["text"]]
    assert "edgepack.agent.systemd.unit" in mend
    wait_until(lambda: "show edgepack-agent.service" in calls(here), "systemctl was asked")


def calls(here):
    return (here.prefix / "run/calls").read_text()
