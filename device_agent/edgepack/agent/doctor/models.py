"""Engines and models: whether they are there, and really give the right answers."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.agent.commands.hand_over import agent_user
from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.trust.errors import EdgepackError

_ENGINE_TIMEOUT_S = 60.0
_MODEL_TIMEOUT_S = 300.0
_MODULE = "edgepack.agent.doctor.trial"


def check_engines(_: Patient) -> Iterator[Finding]:
    """Each engine computes something tiny in a process of its own."""
    from edgepack.runtime import EngineMissingError
    from edgepack.runtime.engines import engine_named, engine_names

    found = 0
    for name in engine_names():
        try:
            versions = engine_named(name).versions()
        except EngineMissingError:
            continue
        shown = ", ".join(f"{package} {version}" for package, version in versions.items())
        wrong = _trial("engine", name, timeout_s=_ENGINE_TIMEOUT_S)
        found += 1
        if wrong:
            yield fail("engine", f"{shown}: {wrong}", f"install {name} anew for this processor")
        else:
            yield ok("engine", f"{shown} computes")
    if not found:
        mend = "pip install 'edgepack[agent-onnx]' or 'edgepack[agent-tflite]'"
        yield fail("engine", "none is installed", mend)


def check_models(patient: Patient) -> Iterator[Finding]:
    """Every bundle's files against their digests; what answers, on its golden samples."""
    memory, store = patient.memory, patient.config.state_dir / "store"
    if memory.damage:
        yield fail(
            "state",
            memory.damage,
            "restart the agent: it sets a damaged database aside and goes on from its second copy",
        )
        return
    if not memory.bundles:
        yield ok("models", "none installed")
        return
    good = True
    for digest, name in memory.bundles.items():
        wrong = _damage(store, digest)
        if wrong:
            good = False
            yield fail(
                "models",
                f"{name}: {wrong}",
                "restart the agent: it fetches the model anew; look at `dmesg` for a failing disk",
            )
    for key, installed in memory.installed.items() if good else ():
        arguments = ("model", str(store), installed.digest, installed.variant)
        user = agent_user(patient.config.state_dir)
        wrong = _trial(*arguments, timeout_s=_MODEL_TIMEOUT_S, user=user)
        text = f"{key.partition('~')[0]} {installed.release.version} ({installed.variant})"
        if wrong:
            yield fail(
                "models",
                f"{text}: {wrong}",
                f"edgepack-agent rollback {key.partition('~')[0]}, or deploy another version",
            )
        else:
            yield ok("models", f"{text} answers its golden samples")
    if patient.answer is not None:
        answering = patient.answer.get("serving", {})
        for name in sorted({k for k in memory.installed if "~" not in k} - answering.keys()):
            yield warn("models", f"{name} is installed but does not answer", "restart the agent")


def _damage(store: Path, digest: str) -> str:
    """What is wrong with the files of a bundle, or ""."""
    from edgepack.bundle import open_layout

    try:
        bundle = open_layout(store, digest, hash_blobs=False)
        for blob in bundle.blobs():
            path = store / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if f"sha256:{found}" != blob.digest:
                return f"file {path.name[:12]}… is damaged"
    except EdgepackError as exc:
        return str(exc)
    except OSError as exc:
        return f"{exc.filename}: {exc.strerror}"
    return ""


def _trial(*arguments: str, timeout_s: float, user: tuple[int, int] | None = None) -> str:
    """Run one thing in a process that may crash or hang; what is wrong, or ""."""
    less: dict[str, Any] = {}
    if user is not None:
        less = {"user": user[0], "group": user[1], "extra_groups": []}
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [sys.executable, "-m", _MODULE, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **less,
        )
    except subprocess.TimeoutExpired:
        return f"took over {timeout_s:.0f} s"
    if done.returncode < 0:
        return f"crashed with signal {-done.returncode}"
    if done.returncode > 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"ended with {done.returncode}"
    return done.stdout.strip()
