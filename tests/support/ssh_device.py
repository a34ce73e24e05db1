"""A device that one can log in to: this machine's files under a layer of the test's own, and sshd.

Everything runs in mount, process and host name namespaces: what is written goes to memory and is
gone afterwards, and so is every process. The machine's own /opt, /etc and /var are never touched.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from support import device_systemctl
from support.agent_process import wait_until

LOOPBACK = "127.0.0.1"
PI = "edgepack-pi"  # a user with sudo, as a Raspberry Pi has one
_START = """set -eu
mount -t tmpfs device "$1"
mkdir "$1/upper" "$1/work" "$1/top"
mount -t overlay device -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/top"
mount -t proc proc "$1/top/proc"
mount --rbind /dev "$1/top/dev"
mount -t tmpfs run "$1/top/run"
hostname "$2"
exec chroot "$1/top" /bin/sh "$3"
"""
_INSIDE = """set -eu
mkdir -p /run/sshd /run/systemd/system /etc/sudoers.d
rm -rf /opt/edgepack /etc/edgepack /var/lib/edgepack
printf '%s\\n' '{machine_id}' >/etc/machine-id
useradd --create-home --shell /bin/sh --password '*' {pi}
printf '%s\\n' '{pi} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{pi}
printf '#!/bin/sh\\nexec %s %s "$@"\\n' '{python}' '{systemctl}' >/usr/bin/systemctl
chmod 755 /usr/bin/systemctl
chmod o+x {folders}
install -m 0644 {config_folder}/user_key.pub /etc/ssh/test_user_key.pub
{more}
exec /usr/sbin/sshd -D -e -f {config}
"""
_SSHD = """ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile /etc/ssh/test_user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
SetEnv PATH={path}
"""
_CLIENT = """Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  Port {port}
Host {name}
  HostName 127.0.0.1
"""


class SshDevice:
    """A device with the host name `name`.

    Args:
        folder: For keys and logs; on this machine.
        name: Its host name, and its alias in the configuration of ssh.
        more: Shell text that runs in it before its sshd, such as `rm /usr/bin/sudo`.
    """

    def __init__(self, folder: Path, name: str, more: str = "") -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.ssh_config = self.folder / "ssh_config"
        self.log = self.folder / "sshd.log"
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = _free_port()
        for key in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key]
            subprocess.run(command, check=True)
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[{LOOPBACK}]:{port} {public}")
        python = Path(sys._base_executable).resolve()
        seen = (python, Path(sysconfig.get_paths()["purelib"]), Path(device_systemctl.__file__))
        folders = {str(parent) for path in (*seen, *_borrowed()) for parent in path.parents}
        path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        places = {"folder": self.folder, "port": port, "name": self.name, "path": path}
        (self.folder / "sshd_config").write_text(_SSHD.format(**places))
        self.ssh_config.write_text(_CLIENT.format(**places))
        inside = _INSIDE.format(
            machine_id=self.machine_id,
            pi=PI,
            python=python,
            systemctl=device_systemctl.__file__,
            folders=" ".join(sorted(folders)),
            more=self._more,
            config=self.folder / "sshd_config",
            config_folder=self.folder,
        )
        (self.folder / "inside.sh").write_text(inside)
        (self.folder / "mount").mkdir()
        command = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"]
        command += ["--propagation", "private", "sh", "-c", _START, "sh"]
        command += [self.folder / "mount", self.name, self.folder / "inside.sh"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

        def listens() -> bool:
            assert self._process.poll() is None, self.log.read_text()
            return "Server listening" in self.log.read_text()

        wait_until(listens, "sshd listens")

    @property
    def machine_id(self) -> str:
        return self.machine_id_of(self.name)

    @staticmethod
    def machine_id_of(name: str) -> str:
        """The machine-id of the device with that name."""
        return f"{hash_of(name):032x}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)  # --kill-child: with everything in it
            self._process.wait(20)
            self._process = None

    def run(self, command: str, *, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a command in it, through its sshd."""
        words = ["ssh", "-F", self.ssh_config, "-l", user, self.name, command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    def read(self, path: str) -> str:
        """A file in it; it must be there."""
        done = self.run(f"cat {path}")
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def systemctl_calls(self) -> list[str]:
        """What `systemctl` was called with, in order."""
        return self.run(f"cat {device_systemctl.CALLS}").stdout.splitlines()


def hash_of(text: str) -> int:
    """A number that follows from a text, up to 128 bits, the same in every process."""
    return int.from_bytes(text.encode()[:16].ljust(16, b"~"), "big")


def write_dependencies(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """A folder of wheels for pip: each dependency of the agent, empty, and a way to the real one.

    Real wheels would be copied and unpacked again and again; the device sees this machine's files.
    """
    folder.mkdir(parents=True)
    for name in ("numpy", "paho-mqtt", "aiomqtt", "cryptography", "h11", "onnxruntime"):
        version = (changes or {}).get(name) or metadata.version(name)
        plain = name.replace("-", "_")
        info = f"{plain}-{version}.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        if name == "numpy":
            files["borrowed.pth"] = "\n".join(map(str, _borrowed()))
        files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
    _bring_pip(folder)
    return folder


def _bring_pip(folder: Path) -> None:
    import ensurepip

    places = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    found = [path for place in places for path in place.glob("pip-*.whl")]
    shutil.copy(found[0], folder)


def _borrowed() -> list[Path]:
    return [Path(entry) for entry in sys.path if entry.endswith("site-packages")]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def require_ssh_devices() -> None:
    """Skip, or fail, where there can be none."""
    if os.environ.get("EDGEPACK_WITHOUT_SSHD"):
        pytest.skip("no sshd, or no right to a namespace of its own")
    for program in ("ssh", "/usr/sbin/sshd", "sudo", "unshare"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install openssh-server sudo")
