"""The Debian package: built of wheels, installed on a Debian of the test's own, and removed."""

import importlib.util
import os
import subprocess

import pytest
from support.agent_wheel import bring_pip, write_wheel
from support.packaged_device import run_inside
from support.repository import REPOSITORY
from support.tiny_bundle import write_tiny_bundle

from edgepack.trust import PrivateKey, keygen

pytestmark = pytest.mark.timeout(600)

HERE = REPOSITORY / "packaging/debian"


@pytest.fixture(scope="module")
def builder():
    """The script that builds it, as a module."""
    spec = importlib.util.spec_from_file_location("build_deb", HERE / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheels_in(folder, version="0.1.0", changes=None, more=()):
    folder.mkdir()
    write_wheel(folder, version, changes)
    bring_pip(folder)
    for name in more:
        (folder / name).write_bytes(b"wheel")
    return folder


def told(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_what_is_in_it(builder, tmp_path):
    """Control fields, files, owners; the same wheels give the same bytes."""
    wheels = wheels_in(tmp_path / "wheels")
    deb = builder.build(wheels, tmp_path / "dist")
    assert "edgepack-agent_0.1.0_all.deb" == deb.name
    fields = told("dpkg-deb", "--field", deb)
    assert "Package: edgepack-agent\nVersion: 0.1.0\nArchitecture: all\n" in fields
    assert "Depends: python3 (>= 3.11~), python3-numpy, python3-cryptography, passwd\n" in fields
    lines = [line.split() for line in told("dpkg-deb", "--contents", deb).splitlines()]
    assert {"root/root"} == {line[1] for line in lines}
    paths = {line[5] for line in lines}
    assert {
        "./usr/bin/edgepack-agent",
        "./usr/share/edgepack-agent/release",
        "./usr/share/edgepack-agent/wheels/edgepack-0.1.0-py3-none-any.whl",
        "./usr/share/doc/edgepack-agent/copyright",
        "./usr/share/doc/edgepack-agent/changelog.gz",
    } <= paths
    assert not any(path.startswith(("./opt", "./usr/local", "./var", "./etc")) for path in paths)
    assert deb.read_bytes() == builder.build(wheels, tmp_path / "again").read_bytes()


@pytest.mark.parametrize(
    ("more", "architecture", "depends"),
    [
        (["numpy-2-cp311-cp311-manylinux_2_17_aarch64.whl",
          "cryptography-43-cp39-abi3-manylinux_2_28_aarch64.whl"],
         "arm64", "python3 (>= 3.11~), python3 (<< 3.12~)"),
        (["tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_armv7l.whl"],
         "armhf", "python3 (>= 3.11~), python3 (<< 3.12~), python3-numpy, python3-cryptography"),
    ],
)  # fmt: skip
def test_for_which_device_it_is(builder, tmp_path, more, architecture, depends):
    """Processor, Python and Debian's own packages follow from the wheels."""
    deb = builder.build(wheels_in(tmp_path / "wheels", more=more), tmp_path)
    assert architecture == told("dpkg-deb", "--field", deb, "Architecture").strip()
    assert f"{depends}, passwd" == told("dpkg-deb", "--field", deb, "Depends").strip()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["a-1-cp311-cp311-linux_x86_64.whl", "b-1-cp311-cp311-linux_aarch64.whl"], "one kind of"),
        (["a-1-cp311-cp311-linux_x86_64.whl", "b-1-cp312-cp312-linux_x86_64.whl"], "one Python"),
    ],
)
def test_wheels_of_two_kinds_are_refused(builder, tmp_path, more, complaint):
    """A package is for one processor and one Python."""
    with pytest.raises(builder.WheelsError, match=complaint):
        builder.build(wheels_in(tmp_path / "wheels", more=more), tmp_path)
    with pytest.raises(builder.WheelsError, match="wheel of edgepack, got none"):
        builder.build(tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_the_maintainer_scripts_are_shell(name):
    """And end at the first thing that fails."""
    subprocess.run(["sh", "-n", HERE / name], check=True)
    assert "\nset -e\n" in (HERE / name).read_text()


BROKEN = {"edgepack/agent/compose.py": ("import asyncio", "import nowhere")}
SCRIPT = """
dpkg() { command dpkg --force-depends "$@"; }  # numpy and cryptography are the test's own
dpkg -i /mnt/dist/edgepack-agent_0.1.0_all.deb >/mnt/first
test "$(stat -c %U:%G:%a /var/lib/edgepack)" = edgepack:edgepack:750
edgepack-agent init --root /mnt/keys/root.json --broker '' --id deb-1 >/mnt/init
runuser -u edgepack -- edgepack-agent install /mnt/tiny-1.0.0.edgepack >/mnt/install
dpkg -i /mnt/dist/edgepack-agent_0.2.0_all.deb >/mnt/second
readlink /opt/edgepack/current >/mnt/current
ls /opt/edgepack/releases >/mnt/releases
runuser -u edgepack -- edgepack-agent status >/mnt/status
if dpkg -i /mnt/dist/edgepack-agent_0.3.0_all.deb >/mnt/third 2>&1; then exit 1; fi
test "$(readlink /opt/edgepack/current)" = "$(cat /mnt/current)"
dpkg --remove edgepack-agent >/mnt/removed
test ! -e /opt/edgepack
test -e /etc/edgepack/agent.toml
test -e /var/lib/edgepack/agent.db
test ! -e /etc/systemd/system/edgepack-agent.service
dpkg --purge edgepack-agent >/mnt/purged
test ! -e /etc/edgepack
test ! -e /var/lib/edgepack
if getent passwd edgepack; then exit 1; fi
cat /run/systemctl.calls >/mnt/calls
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_installed_upgraded_refused_removed_and_purged(builder, tmp_path):
    """On this machine's Debian, under a layer that is thrown away."""
    (tmp_path / "dist").mkdir()
    for version, changes in (("0.1.0", None), ("0.2.0", None), ("0.3.0", BROKEN)):
        folder = wheels_in(tmp_path / version, version, changes)
        builder.build(folder, tmp_path / "dist")
    keys = keygen(tmp_path / "keys")
    for path in (tmp_path, tmp_path / "keys"):
        path.chmod(0o755)
    write_tiny_bundle(tmp_path, key=PrivateKey.load(keys.release_key)).chmod(0o644)
    done = run_inside(tmp_path, SCRIPT)
    assert 0 == done.returncode, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def said(name):
        return (tmp_path / name).read_text()

    assert "next: edgepack-agent init, then systemctl start edgepack-agent" in said("first")
    assert "device deb-1" in said("init")
    assert said("install").startswith("tiny: installed 1.0.0")
    assert said("current").startswith("releases/0.2.0-deb")
    assert 2 == len(said("releases").split())
    assert "tiny: installed 1.0.0" in said("status")
    calls = said("calls").splitlines()
    assert "restart edgepack-agent.service" in calls
    assert "disable --now edgepack-agent.service" in calls
