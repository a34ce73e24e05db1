"""Wheels for another machine, got by this machine's pip with its settings: indexes, proxies, all.

They are kept: the next host that is alike, and the next call, take the same ones, so that a fleet
has one set of versions until somebody asks for newer ones.
"""

import asyncio
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgepack.fleet.setup.decide import ENGINE_REQUIREMENTS, Platform
from edgepack.fleet.setup.errors import WheelError
from edgepack.fleet.setup.own_wheel import own_wheel

_PIP_S = 1800.0
_SHORT = 12
_DONE = ".complete"
_MOST_SETS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSet:
    """What one kind of host installs.

    Attributes:
        release: Name of the release that they make: version, and a digest of everything.
        wheels: Files, pip's among them.
        requirements: What to install, as pip takes it.
    """

    release: str
    wheels: tuple[Path, ...]
    requirements: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.wheels)


class WheelShop:
    """Gets wheels, for each platform once.

    Args:
        cache: Folder in which they are kept.
        refresh: Ask the index again though there are some.
    """

    def __init__(self, cache: Path, *, refresh: bool = False) -> None:
        self._cache = cache
        self._refresh = refresh
        self._own: tuple[str, bytes] | None = None
        self._work: dict[Platform, asyncio.Task[WheelSet]] = {}

    async def get(self, platform: Platform) -> WheelSet:
        """The wheels of a platform.

        Raises:
            WheelError: There are none for it, or pip cannot get them.
        """
        if platform not in self._work:
            self._work[platform] = asyncio.create_task(self._get(platform))
        return await asyncio.shield(self._work[platform])

    async def _get(self, platform: Platform) -> WheelSet:
        if self._own is None:
            self._own = own_wheel()
        name, data = self._own
        key = hashlib.sha256(data + repr(platform).encode()).hexdigest()[: 2 * _SHORT]
        kept = self._cache / f"{platform.machine}-{key}"
        if self._refresh or not (kept / _DONE).exists():
            await self._download(platform, name, data, kept)
        return _described(kept, platform)

    async def _download(self, platform: Platform, name: str, data: bytes, kept: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._cache, prefix="."))
        try:
            own = folder / name
            own.write_bytes(data)
            await _pip_download(platform, own, folder)
            (folder / _DONE).touch()
            shutil.rmtree(kept, ignore_errors=True)
            folder.rename(kept)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._forget_old()

    def _forget_old(self) -> None:
        """Delete all but the newest sets: a set is some 50 MB."""
        marks = [path / _DONE for path in self._cache.iterdir() if (path / _DONE).exists()]
        marks.sort(key=lambda mark: mark.stat().st_mtime, reverse=True)
        for mark in marks[_MOST_SETS:]:
            shutil.rmtree(mark.parent, ignore_errors=True)


def pip_words(platform: Platform, own: Path, target: Path) -> list[str]:
    """Pip's arguments for what a platform needs."""
    digits = "".join(map(str, platform.python))
    words = ["download", "--quiet", "--no-input", "--disable-pip-version-check"]
    words += ["--dest", str(target), "--only-binary", ":all:"]
    words += ["--implementation", "cp", "--python-version", ".".join(map(str, platform.python))]
    for abi in (f"cp{digits}", "abi3", "none"):
        words += ["--abi", abi]
    for tag in platform.tags:
        words += ["--platform", tag]
    if not platform.from_system:
        return [*words, str(own), *_of_engines(platform), "pip"]
    return [*words, "--no-deps", str(own), *_direct(platform), *_of_engines(platform), "pip"]


def _of_engines(platform: Platform) -> list[str]:
    """What the engines need, without what comes from the host's own packages."""
    wanted = [one for engine in platform.engines for one in ENGINE_REQUIREMENTS[engine]]
    return [one for one in wanted if _name(one) not in platform.from_system]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    return found[0] if found else ""


def _direct(platform: Platform) -> list[str]:
    """What edgepack itself needs, without what comes from the host's own packages."""
    return [
        requirement
        for requirement in metadata.requires("edgepack") or ()
        if "extra ==" not in requirement and _name(requirement) not in platform.from_system
    ]


async def _pip_download(platform: Platform, own: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pip",
        *pip_words(platform, own, target),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"},
    )
    try:
        async with asyncio.timeout(_PIP_S):
            _, told = await process.communicate()
    except TimeoutError as exc:
        raise WheelError(f"pip took over {_PIP_S:.0f} s for {platform}") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise WheelError(f"no wheels for {platform}: {_reason(told.decode('utf-8', 'replace'))}")


def _reason(stderr: str) -> str:
    if "No module named pip" in stderr:
        return "pip is not installed here: python -m ensurepip"
    lines = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if "ERROR" in line]
    return "; ".join(lines[-2:])[:400] or "pip failed"


def _described(folder: Path, platform: Platform) -> WheelSet:
    wheels = tuple(sorted(folder.glob("*.whl")))
    versions = [path.name.split("-")[1] for path in wheels if path.name.startswith("edgepack-")]
    requirements = (f"edgepack=={versions[0]}", *platform.engines)
    return WheelSet(
        release=release_name(versions[0], wheels, requirements),
        wheels=wheels,
        requirements=requirements,
    )


def release_name(version: str, wheels: Sequence[Path], requirements: Sequence[str]) -> str:
    """The name of what wheels make; pip's own is only a tool, and does not count."""
    digest = hashlib.sha256("\n".join(requirements).encode())
    for path in wheels:
        if not path.name.startswith("pip-"):
            with path.open("rb") as file:
                digest.update(
                    f"\n{path.name} ".encode() + hashlib.file_digest(file, "sha256").digest()
                )
    return f"{version}-{digest.hexdigest()[:_SHORT]}"
