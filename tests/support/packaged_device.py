"""This machine's files under a layer of the test's own, for a package to be installed into.

Everything runs in mount and process namespaces: what is written goes to memory and is gone
afterwards. The machine's own /opt, /etc and /var are never touched.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.repository import REPOSITORY

_START = """set -eu
mount -t tmpfs device "$1"
mkdir "$1/upper" "$1/work" "$1/top"
mount -t overlay device -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/top"
mount -t proc proc "$1/top/proc"
mount --rbind /dev "$1/top/dev"
mount -t tmpfs run "$1/top/run"
mount --bind "$2" "$1/top/mnt"
exec chroot "$1/top" /bin/sh /mnt/inside.sh
"""
_BEFORE = """set -eu
mkdir -p /run/systemd/system
rm -rf /opt/edgepack /etc/edgepack /var/lib/edgepack
printf '#!/bin/sh\\necho "$@" >>/run/systemctl.calls\\n' >/usr/bin/systemctl
chmod 755 /usr/bin/systemctl
chmod o+x {folders}
"""


def run_inside(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of such a machine, which is gone afterwards.

    Args:
        folder: A folder of this machine, which is /mnt there.
        script: Shell text; it ends at the first command that fails.
    """
    if subprocess.run(["sh", REPOSITORY / ".ci/has_namespaces.sh"], check=False).returncode != 0:
        if os.environ.get("EDGEPACK_WITHOUT_SSHD"):
            pytest.skip("namespaces and overlays are not allowed here")
        pytest.fail("namespaces and overlays are not allowed here", pytrace=False)
    site = Path(sysconfig.get_paths()["purelib"])
    seen = {parent for path in (site, *map(Path, sys.path)) for parent in (path, *path.parents)}
    folders = " ".join(sorted(str(path) for path in seen if path.is_dir()))
    (folder / "inside.sh").write_text(_BEFORE.format(folders=folders) + script)
    mount = folder / "mount"
    mount.mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
         "sh", "-c", _START, "sh", mount, folder],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
