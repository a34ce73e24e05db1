"""A folder for machines that no network reaches: wheels, configuration and `install.sh`."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.fleet.setup.agent_toml import agent_toml
from edgepack.fleet.setup.decide import Platform, platform_of
from edgepack.fleet.setup.errors import SettingsError
from edgepack.fleet.setup.folder import install_folder
from edgepack.fleet.setup.options import SetupOptions
from edgepack.fleet.setup.probe import RemotePython
from edgepack.fleet.setup.secret_files import SecretFiles
from edgepack.fleet.setup.wheels import WheelSet, WheelShop, release_name

_PLATFORM = re.compile(r"([a-z0-9_]{2,20}):3\.(\d{1,2})(?::2\.(\d{1,2}))?")
_GLIBC_MINOR = 36  # Debian 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Stick:
    """What was written.

    Attributes:
        folder: Where.
        release: Name of the release that it installs.
        platforms: For which machines.
        wheels: How many files.
        size_bytes: Their size.
    """

    folder: Path
    release: str
    platforms: tuple[str, ...]
    wheels: int
    size_bytes: int


def parse_platform(text: str, engines: Sequence[str] = ()) -> Platform:
    """Parse `MACHINE:PYTHON[:GLIBC]`, such as `aarch64:3.11:2.36`.

    Raises:
        SettingsError: It is not that.
        UnfitError: There are no engines for it.
    """
    match = _PLATFORM.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"platform must be MACHINE:PYTHON[:GLIBC] such as aarch64:3.11:2.36, got {text[:80]!r}"
        )
    python = RemotePython(
        path="",
        version=(3, int(match[2]), 0),
        machine=match[1],
        glibc=(2, int(match[3]) if match[3] else _GLIBC_MINOR),
    )
    return platform_of(python, engines)


async def write_stick(folder: Path, platforms: Sequence[Platform], options: SetupOptions) -> Stick:
    """Write the folder.

    Args:
        folder: Where to; made if it is missing, else it must be empty or an older one.
        platforms: For which machines.
        options: What agent.toml shall say.

    Raises:
        SettingsError: The folder holds something else, or a password would lie on the stick.
        WheelError: There are no wheels for a platform.
        OSError: It cannot be written.
    """
    _check(folder, options)
    shop = WheelShop(options.cache, refresh=options.refresh)
    sets = [await shop.get(platform) for platform in platforms]
    everything = _together(sets, platforms)
    nothing = SecretFiles()
    certificate = SecretFiles(ca=options.secrets.read(host="", device="").ca)
    config = agent_toml(None, options.wanted, certificate, default_device=None)
    written = install_folder(
        everything, root=options.root, config=config.text, secrets=nothing, with_wheels=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    (folder / "wheelhouse.json").unlink(missing_ok=True)
    texts = dict(written.texts)
    if certificate.ca is not None:
        texts["broker-ca.pem"] = certificate.ca
    for name, data in texts.items():
        (folder / name).write_bytes(data)
    (folder / "install.sh").chmod(0o755)
    for path in written.wheels:
        shutil.copy(path, folder)
    return Stick(
        folder=folder,
        release=everything.release,
        platforms=tuple(str(platform) for platform in platforms),
        wheels=len(written.wheels),
        size_bytes=everything.size_bytes,
    )


def _check(folder: Path, options: SetupOptions) -> None:
    secrets = options.secrets
    if secrets.password or secrets.password_file or secrets.key_file or secrets.cert_file:
        raise SettingsError(
            "passwords and private keys do not go on a stick",
            hint="put them into /etc/edgepack on the device, and name them in agent.toml",
        )
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} must be a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "release").exists():
        raise SettingsError(f"{folder} must be empty, or written by an earlier --wheelhouse")


def _together(sets: Sequence[WheelSet], platforms: Sequence[Platform]) -> WheelSet:
    """One set for several platforms; each takes its own engine of it."""
    if len(sets) == 1:
        return sets[0]
    wheels = {path.name: path for one in sets for path in one.wheels}
    requirements = {sets[0].requirements[0]: None}
    for platform in platforms:
        for engine in platform.engines:
            requirements[f'{engine}; platform_machine == "{platform.machine}"'] = None
    files = tuple(wheels[name] for name in sorted(wheels))
    version = sets[0].release.rpartition("-")[0]
    return WheelSet(
        release=release_name(version, files, tuple(requirements)),
        wheels=files,
        requirements=tuple(requirements),
    )
