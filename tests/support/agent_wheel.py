"""Wheels of the agent as a release has it: of this checkout, under another version, perhaps broken.

Their dependencies are those of the environment that runs the tests; a path file in the wheel
says where they are, so that nothing is copied or fetched.
"""

import ensurepip
import hashlib
import shutil
import sys
import venv
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from support.repository import REPOSITORY

ROOTS = ("runtime", "device_agent")
_SCRIPT = """#!{python}
import sys
from edgepack.agent.main import main
sys.exit(main())
"""


def write_wheel(folder: Path, version: str, changes: Mapping[str, tuple[str, str]] | None = None):
    """Write `edgepack-VERSION-py3-none-any.whl`.

    Args:
        folder: Where.
        version: Its version.
        changes: Path in the wheel → what is replaced there by what; ("", text) appends.
    """
    changes = dict(changes or {})
    files: dict[str, bytes] = {}
    for root in ROOTS:
        top = REPOSITORY / root
        for path in sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(top))] = path.read_bytes()
    for name, (old, new) in changes.items():
        text = files[name].decode()
        assert old in text, (name, old)
        files[name] = (text.replace(old, new) if old else text + new).encode()
    borrowed = [entry for entry in sys.path if entry.endswith("site-packages")]
    files["borrowed.pth"] = "\n".join(borrowed).encode()
    info = f"edgepack-{version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: edgepack\nVersion: {version}\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = (
        b"[console_scripts]\nedgepack-agent = edgepack.agent.main:main\n"
    )
    lines = [f"{name},sha256={_hash(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"edgepack-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def bring_pip(folder: Path) -> None:
    """Put pip's own wheel, as Python ships it, into a folder."""
    places = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    found = [path for place in places for path in place.glob("pip-*.whl")]
    shutil.copy(found[0], folder)


def unpack_release(release: Path, wheel: Path) -> None:
    """Make the environment that `edgepack setup` would, of one wheel."""
    venv.EnvBuilder(symlinks=True).create(release)
    (packages,) = (release / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    script = release / "bin" / "edgepack-agent"
    script.write_text(_SCRIPT.format(python=release / "bin" / "python"))
    script.chmod(0o755)


def _hash(data: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
