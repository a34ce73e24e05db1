"""edgepack's own wheel, made of what runs here: an installed package or a source tree alike.

It needs no build tool and no network; the same files give the same bytes. It holds what a device
runs; the converter, the fleet's side and the `edgepack` command stay on the workstation.
"""

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

import edgepack
from edgepack.fleet.setup.errors import WheelError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PACKAGES = ("agent", "bundle", "monitor", "runtime", "trust", "wire")
_SCRIPTS = b"[console_scripts]\nedgepack-agent = edgepack.agent.main:main\n"
_LEFT_OUT = frozenset({"__pycache__"})
_MODE = 0o100644 << 16


def own_wheel() -> tuple[str, bytes]:
    """Name and content of the wheel.

    Raises:
        WheelError: edgepack is not installed as a distribution.
    """
    try:
        distribution = metadata.distribution("edgepack")
    except metadata.PackageNotFoundError as exc:
        raise WheelError("edgepack is not installed here: pip install edgepack") from exc
    version = distribution.version
    info = f"edgepack-{version}.dist-info"
    files = _sources()
    text = distribution.read_text("METADATA")
    if text is None:
        raise WheelError("the installation of edgepack here has no metadata: install it again")
    files[f"{info}/METADATA"] = text.encode()
    files[f"{info}/entry_points.txt"] = _SCRIPTS
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: edgepack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = _MODE
            archive.writestr(entry, data)
    return f"edgepack-{version}-py3-none-any.whl", packed.getvalue()


def _sources() -> dict[str, bytes]:
    """Every file of the packages; of two places that have one, the first, as imports do."""
    tops: dict[str, Path] = {}
    for place in edgepack.__path__:
        for name in _PACKAGES:
            if (Path(place) / name).is_dir():
                tops.setdefault(name, Path(place) / name)
    found = {
        path.relative_to(top.parent.parent).as_posix(): path
        for top in tops.values()
        for path in top.rglob("*")
        if path.is_file() and not _LEFT_OUT.intersection(path.parts)
    }
    return {name: found[name].read_bytes() for name in sorted(found)}


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
