"""Builds `edgepack-agent_VERSION_ARCH.deb` from a folder of wheels, with nothing but dpkg-deb.

    edgepack setup --wheelhouse wheels --platform aarch64:3.11      # or any folder of wheels
    python packaging/debian/build.py wheels --output dist

The folder must hold edgepack's wheel, pip's, and what the agent needs for ONE kind of device. The
same wheels give the same bytes.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}
ENGINES = ("onnxruntime", "ai_edge_litert", "tflite_runtime")
# Where there are no wheels of these, Debian's own packages serve (docs/operations.md).
FROM_DEBIAN = {"numpy": "python3-numpy", "cryptography": "python3-cryptography"}
EPOCH_S = 1_735_689_600  # SOURCE_DATE_EPOCH where it is not set: the same bytes each time
_WHEEL = re.compile(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl")


class WheelsError(Exception):
    """The folder is no set of wheels for one kind of device."""


def build(wheels: Path, output: Path) -> Path:
    """Build the package.

    Args:
        wheels: Folder of wheels.
        output: Folder that the package is written to.

    Returns:
        Its path.

    Raises:
        WheelsError: The wheels are not those of one kind of device.
    """
    files = sorted(wheels.glob("*.whl"))
    parts = [match for path in files if (match := _WHEEL.fullmatch(path.name))]
    names = {match[1].lower(): match[2] for match in parts}
    for needed in ("edgepack", "pip"):
        if needed not in names:
            raise WheelsError(f"{wheels} must hold a wheel of {needed}, got none")
    version, architecture = names["edgepack"], _architecture(parts)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _lay_out(tree, files, names, version)
        depends = _depends(parts, names)
        _control(tree, version=version, architecture=architecture, depends=depends)
        output.mkdir(parents=True, exist_ok=True)
        target = output / f"edgepack-agent_{version}_{architecture}.deb"
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or str(EPOCH_S)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "-z0", "--build", str(tree), str(target)],  # noqa: S607
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        )
    return target


def _architecture(parts: list[re.Match[str]]) -> str:
    tags = {match[5] for match in parts} - {"any"}
    found = {debian for tag in tags for name, debian in ARCHITECTURES.items() if tag.endswith(name)}
    if len(found) > 1:
        raise WheelsError(f"the wheels must be of one kind of processor, got {sorted(found)}")
    return found.pop() if found else "all"


def _depends(parts: list[re.Match[str]], names: dict[str, str]) -> str:
    """Which Python the wheels are for, and what of Debian's they count on."""
    minors = {
        int(match[3][3:])
        for match in parts
        if re.fullmatch(r"cp3\d+", match[3]) and match[4] != "abi3"
    }
    if len(minors) > 1:
        raise WheelsError(f"the wheels must be for one Python, got 3.{sorted(minors)}")
    python = f"python3 (>= 3.{min(minors, default=11)}~)"
    if minors:
        python += f", python3 (<< 3.{max(minors) + 1}~)"
    return ", ".join(
        [python, *(package for name, package in FROM_DEBIAN.items() if name not in names)]
    )


def _lay_out(tree: Path, files: list[Path], names: dict[str, str], version: str) -> None:
    share = tree / "usr/share/edgepack-agent"
    documents = tree / "usr/share/doc/edgepack-agent"
    for folder in (share / "wheels", documents, tree / "usr/bin", tree / "DEBIAN"):
        folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for path in files:
        data = path.read_bytes()
        (share / "wheels" / path.name).write_bytes(data)
        digest.update(hashlib.sha256(data).digest())
    (share / "release").write_text(f"{version}-deb{digest.hexdigest()[:8]}\n")
    engines = [name for name in ENGINES if name in names]
    requirements = [f"{name.replace('_', '-')}=={names[name]}" for name in ("edgepack", *engines)]
    (share / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    if any(name not in names for name in FROM_DEBIAN):
        (share / "system-site-packages").touch()
    (tree / "usr/bin/edgepack-agent").symlink_to("/opt/edgepack/current/bin/edgepack-agent")
    shutil.copy(HERE / "copyright", documents / "copyright")
    changelog = (
        f"edgepack-agent ({version}) unstable; urgency=medium\n\n"
        "  * What changed is in CHANGELOG.md of the source.\n\n"
        " -- edgepack <edgepack@localhost>  Wed, 01 Jan 2025 00:00:00 +0000\n"
    )
    packed = gzip.compress(changelog.encode(), 9, mtime=0)
    (documents / "changelog.gz").write_bytes(packed)


def _control(tree: Path, *, version: str, architecture: str, depends: str) -> None:
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(HERE / name, tree / "DEBIAN" / name)
        (tree / "DEBIAN" / name).chmod(0o755)
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    text = (HERE / "control.in").read_text()
    for key, value in {
        "VERSION": version,
        "ARCHITECTURE": architecture,
        "SIZE_KB": str(size // 1024 + 1),
        "PYTHON": depends,
    }.items():
        text = text.replace(f"@{key}@", value)
    (tree / "DEBIAN/control").write_text(text)
    for path in tree.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        elif path.parent.name != "DEBIAN" and not path.is_symlink():
            path.chmod(0o644)


def main() -> int:
    """Build one package."""
    parser = argparse.ArgumentParser(description="Build the Debian package of the agent.")
    parser.add_argument("wheels", type=Path, help="folder of wheels")
    parser.add_argument(
        "--output", type=Path, default=Path("dist"), help="folder (default: %(default)s)"
    )
    args = parser.parse_args()
    try:
        sys.stdout.write(f"{build(args.wheels, args.output)}\n")
    except WheelsError as exc:
        sys.stderr.write(f"build.py: error: {exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
