"""Builds the wheel, installs it with `[agent-onnx]` alone in an empty environment, runs the agent.

What a device gets is the wheel, not this checkout: a module or a dependency that is missing from
it shows only here. The bundle that the agent installs and answers from is made by this checkout.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# What code reads beside itself; a build that takes only modules would lose it without a word.
FILES = {
    "edgepack/agent/systemd/edgepack-agent.service",
    "edgepack/fleet/setup/install.sh",
    "edgepack/fleet/setup/probe.sh",
}
UNWANTED = {"onnx", "scikit-learn", "skl2onnx", "torch", "pandas", "pyarrow", "scipy", "rich"}
_MAKE_BUNDLE = """
import sys
from pathlib import Path
from support.tiny_bundle import write_tiny_bundle
from edgepack.trust import PrivateKey, keygen
folder = Path(sys.argv[1])
keys = keygen(folder / "keys")
print(write_tiny_bundle(folder, key=PrivateKey.load(keys.release_key)))
"""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(
        list(map(str, command)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )
    return done.stdout


def main() -> int:
    """Build, install, start, install a bundle, ask for the status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist")
        (wheel,) = (folder / "dist").glob("*.whl")
        missing = FILES - set(zipfile.ZipFile(wheel).namelist())
        if missing:
            raise SystemExit(f"the wheel must hold {', '.join(sorted(missing))}")
        venv.create(folder / "empty", with_pip=True)
        python = folder / "empty" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", f"{wheel}[agent-onnx]")
        listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
        packages = {package["name"].lower() for package in listed}
        if packages & UNWANTED:
            raise SystemExit(f"[agent-onnx] must not install {sorted(packages & UNWANTED)}")
        bundle = run(sys.executable, "-c", _MAKE_BUNDLE, folder, PYTHONPATH="tests").strip()
        phase = try_agent(folder, Path(bundle))
        if phase != "confirmed":
            raise SystemExit(f"the agent from the wheel must confirm the bundle, got {phase!r}")
        size = sum(f.stat().st_size for f in (folder / "empty").rglob("*") if f.is_file())
        print(f"{wheel.name} [agent-onnx]: {len(packages)} packages, {size / 1e6:.0f} MB, ok")  # noqa: T201
    return 0


def try_agent(folder: Path, bundle: Path) -> str:
    """Start the agent, install the bundle into it; the phase that it ends in."""
    command = folder / "empty" / "bin" / "edgepack-agent"
    config = folder / "agent.toml"
    config.write_text(
        f'device = "wheel"\nstate = "{folder}/state"\nroot = "{folder}/keys/root.json"\n'
        '[http]\nlisten = "127.0.0.1:0"\n[probation]\nseconds = 1\n'
    )
    agent = subprocess.Popen([command, "run", "--config", config])
    try:
        deadline = time.monotonic() + 60
        phase = ""
        while phase != "confirmed" and time.monotonic() < deadline:
            time.sleep(0.2)
            status = json.loads(run(command, "status", "--config", config, "--json"))
            if status["running"] and not status["models"]:
                run(command, "install", "--config", config, bundle)
            phase = status["models"][0]["phase"] if status["models"] else ""
        return phase
    finally:
        agent.terminate()
        agent.wait(20)


if __name__ == "__main__":
    sys.exit(main())
