"""A release: an environment of its own, made of signed wheels, without a network."""

import logging
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from edgepack.agent.disk import storage_error
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade.place import Origin, Place
from edgepack.wire.wheelhouse import Wheelhouse, copy_wheels

logger = logging.getLogger(__name__)

# What an agent may have besides its dependencies, by the name of the distribution.
_ENGINES = ("onnxruntime", "ai-edge-litert", "tflite-runtime")
_PIP_TIMEOUT_S = 1800.0
_MOST_LINES = 3


def make_release(place: Place, name: str, folder: Path, house: Wheelhouse) -> None:
    """Make `releases/NAME`; one that is whole already is taken as it is.

    Args:
        place: Where.
        name: The release's name.
        folder: Holds the wheels.
        house: What of them was signed; the signature was verified.

    Raises:
        WheelhouseError: A wheel is missing, or not the one that was signed.
        UpgradeError: No environment can be made of them on this device.
        StoreError: The disk does not take it.
    """
    if place.origin(name) is not None:
        return
    place.discard(name)
    release = place.release(name)
    wheels = release / "wheels"
    try:
        _builder().create(release)
        wheels.mkdir(mode=0o700)
        copy_wheels(folder, house, wheels)
        _install(release, wheels, house)
        for path in wheels.iterdir():
            path.unlink()
        wheels.rmdir()
        release.chmod(0o755)
        place.completed(name, Origin(version=house.version, sequence=house.sequence))
    except OSError as exc:
        place.discard(name)
        raise storage_error(release, exc) from exc
    except BaseException:
        place.discard(name)
        raise


def _builder() -> venv.EnvBuilder:
    """As the environment that this runs in: with the system's packages where it has them."""
    config = Path(sys.prefix) / "pyvenv.cfg"
    lines = config.read_text(encoding="utf-8").lower().split("\n") if config.exists() else []
    system = any(line.replace(" ", "") == "include-system-site-packages=true" for line in lines)
    return venv.EnvBuilder(system_site_packages=system, symlinks=True)


def requirements_of(house: Wheelhouse) -> tuple[str, ...]:
    """What to install of a wheelhouse: what it says, or the new edgepack and today's engines."""
    if house.requirements:
        return house.requirements
    installed = {(found.name or "").lower().replace("_", "-") for found in metadata.distributions()}
    offered = {wheel.name.partition("-")[0].lower().replace("_", "-") for wheel in house.wheels}
    engines = [name for name in _ENGINES if name in installed and name in offered]
    return (f"edgepack=={house.version}", *engines)


def _install(release: Path, wheels: Path, house: Wheelhouse) -> None:
    python = release / "bin" / "python"
    command = [
        *_pip(python, wheels),
        "install",
        "--no-index",
        "--find-links",
        str(wheels),
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        *requirements_of(house),
    ]
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PIP_TIMEOUT_S,
            check=False,
            # no configuration of a person or the machine may bring in another index
            env={**environment, "PIP_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"},
        )
    except subprocess.TimeoutExpired as exc:
        raise UpgradeError(f"installing the wheels took over {_PIP_TIMEOUT_S:.0f} s") from exc
    if done.returncode != 0:
        raise UpgradeError(f"the wheels do not fit this device: {_reason(done.stderr)}")


def _pip(python: Path, wheels: Path) -> Sequence[str]:
    """pip: of the wheelhouse, or of the environment that this runs in."""
    brought = sorted(wheels.glob("pip-*.whl"))
    if brought:
        return [str(python), str(brought[-1] / "pip")]
    if (Path(sys.prefix) / "bin" / "pip").exists():
        return [sys.executable, "-m", "pip", "--python", str(python)]
    raise UpgradeError("no pip is here: put pip's wheel into the wheelhouse and sign it again")


def _reason(stderr: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if "ERROR" in line]
    return "; ".join(lines[:_MOST_LINES])[:500] or "pip failed"
