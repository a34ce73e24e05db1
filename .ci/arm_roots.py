"""Debian roots for 64-bit and 32-bit ARM, for `make test-arm`: what a device has, emulated.

Makes `build/arm/arm64` and `build/arm/armhf` with debootstrap and puts the agent's dependencies
into them as a device would get them: wheels where there are some, Debian's packages where not. A
root is made once, and anew when what belongs into it changes. Needs root for the packages, the
registration of the emulator and chroot; without that it says so and makes nothing (exit code 0).
edgepack itself is not in a root: the tests bring the wheel of the moment.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROOTS = REPOSITORY / "build" / "arm"
SUITE = "bookworm"
PACKAGES = "opt/packages"  # in a root: the wheels' own folder
_CONSTRAINTS = REPOSITORY / "constraints.txt"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NEEDED = {"debootstrap": "debootstrap", "qemu-arm-static": "qemu-user-static"}
_OLDEST_GLIBC, _GLIBC = 17, 36  # of manylinux2014, of bookworm


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What one architecture's root is made of.

    Attributes:
        arch: Debian's name.
        machine: The name in tags of wheels.
        emulator: The name under binfmt_misc.
        debian: Debian packages.
        extras: Extras of edgepack whose requirements come as wheels.
        wheels: Further wheels.
    """

    arch: str
    machine: str
    emulator: str
    debian: tuple[str, ...]
    extras: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The root."""
        return ROOTS / self.arch

    def requirements(self) -> list[str]:
        """The agent's requirements that Debian does not bring."""
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        listed = list(project["dependencies"])
        for extra in self.extras:
            listed += project["optional-dependencies"][extra]
        brought = {name.removeprefix("python3-") for name in self.debian}
        return [r for r in (*listed, *self.wheels) if _name(r) not in brought]

    def platforms(self) -> list[str]:
        """Tags of the wheels that this root's glibc can load, newest first."""
        minors = range(_GLIBC, _OLDEST_GLIBC - 1, -1)
        newer = [f"manylinux_2_{minor}_{self.machine}" for minor in minors]
        return [*newer, f"manylinux2014_{self.machine}"]

    def digest(self) -> str:
        """Changes when the root must be made anew."""
        texts = [Path(__file__).read_text(), _CONSTRAINTS.read_text()]
        parts = [self.arch, *self.requirements(), *texts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


RECIPES = (
    Recipe(
        arch="arm64",
        machine="aarch64",
        emulator="qemu-aarch64",
        debian=("python3",),
        extras=("agent-onnx", "agent-tflite"),
    ),
    Recipe(
        arch="armhf",
        machine="armv7l",
        emulator="qemu-arm",
        # cffi-backend by name: debootstrap resolves no virtual packages
        debian=(
            "python3",
            "python3-numpy",
            "python3-cryptography",
            "python3-cffi-backend",
            "python3-h11",
        ),
        wheels=("tflite-runtime",),
    ),
)


def main() -> int:
    """Make what is missing."""
    missing = [recipe for recipe in RECIPES if not _is_made(recipe)]
    reason = _unable(missing)
    if reason:
        say(f"SKIPPED: {reason}")
        return 0
    _install({name for tool, name in _NEEDED.items() if shutil.which(tool) is None})
    for recipe in RECIPES:
        _register(recipe)
    for recipe in missing:
        started = time.monotonic()
        say(f"making {recipe.folder.relative_to(REPOSITORY)}: some minutes under the emulator")
        _make(recipe)
        say(f"made {recipe.folder.relative_to(REPOSITORY)} in {time.monotonic() - started:.0f} s")
    return 0


def _unable(missing: list[Recipe]) -> str:
    if os.geteuid() != 0:
        return "ARM roots need root (packages, chroot, the registration of the emulator)"
    if shutil.which("apt-get") is None and (
        missing or any(shutil.which(tool) is None for tool in _NEEDED)
    ):
        return "ARM roots are made from Debian's packages, and here is no apt-get"
    return ""


def _is_made(recipe: Recipe) -> bool:
    stamp = ROOTS / f"{recipe.arch}.made"
    return stamp.exists() and stamp.read_text() == recipe.digest()


def _install(packages: set[str]) -> None:
    if packages:
        say(f"installing {', '.join(sorted(packages))}")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", *sorted(packages))


def _register(recipe: Recipe) -> None:
    """Let the kernel start the emulator for this architecture's programs, in a chroot as well."""
    entry = _BINFMT / recipe.emulator
    if not (_BINFMT / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT))
    if not entry.exists():
        run("update-binfmts", "--enable", recipe.emulator)
    if not entry.exists() or "F" not in entry.read_text().partition("flags:")[2].split("\n")[0]:
        raise SystemExit(f"{entry} must be registered with the flag F (fix binary)")


def _make(recipe: Recipe) -> None:
    stamp = ROOTS / f"{recipe.arch}.made"
    stamp.unlink(missing_ok=True)
    shutil.rmtree(recipe.folder, ignore_errors=True)
    ROOTS.mkdir(parents=True, exist_ok=True)
    run(
        "debootstrap",
        "--variant=minbase",
        f"--arch={recipe.arch}",
        f"--include={','.join(recipe.debian)}",
        SUITE,
        str(recipe.folder),
        _mirror(),
    )
    shutil.rmtree(recipe.folder / "var/cache/apt", ignore_errors=True)
    # --no-deps where Debian brings numpy: pip would fetch another
    closed = ["--no-deps"] if "python3-numpy" in recipe.debian else []
    platforms = [word for tag in recipe.platforms() for word in ("--platform", tag)]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"),
        *("--constraint", str(_CONSTRAINTS), "--python-version", "3.11"),
        *("--implementation", "cp", *platforms, *closed),
        *("--target", str(recipe.folder / PACKAGES), *recipe.requirements()),
    )
    stamp.write_text(recipe.digest())


def _mirror() -> str:
    """Where this machine itself gets its Debian packages."""
    listed = run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"
    )
    for line in listed.splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    raise SystemExit("apt's sources must have Debian's main archive: see /etc/apt")


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9-]+", requirement)
    return match[0] if match else requirement


def run(*command: str) -> str:
    """Run a command; what it said, which is shown only when it failed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise SystemExit(f"{tail}\n{command[0]} failed with exit code {done.returncode}")
    return done.stdout


def say(text: str) -> None:
    """One line for whoever waits."""
    print(f"test-arm: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
