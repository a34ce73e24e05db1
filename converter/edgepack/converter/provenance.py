"""Where a bundle came from: no clock, no host, no user, no absolute path."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath

from edgepack.converter.errors import ModelFileError
from edgepack.converter.recipe import Recipe
from edgepack.converter.sources.source import ModelFacts
from edgepack.runtime.dataset import Dataset
from edgepack.trust import strict_json
from edgepack.trust.strict_json import JsonValue

PATH = "provenance.json"
_GIT_TIMEOUT_S = 10
_MOST_FILES = 4096
_OURS = ("edgepack", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """The work tree that the model lies in: its commit, and whether tracked files differ."""

    commit: str
    dirty: bool


def path_sha256(path: Path) -> str:
    """Give `sha256:<hex>` of a file, or of a folder: of its files' names and digests.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        if not path.is_dir():
            return f"sha256:{_file_digest(path)}"
        files = sorted(item for item in path.rglob("*") if item.is_file())
        if len(files) > _MOST_FILES:
            raise ModelFileError(
                f"model {path.name} has {len(files)} files: is it the right folder?"
            )
        lines = [f"{_file_digest(item)}  {item.relative_to(path).as_posix()}\n" for item in files]
        return f"sha256:{sha256(''.join(lines).encode()).hexdigest()}"
    except OSError as exc:
        raise ModelFileError(f"model {path.name} cannot be read: {exc.strerror}") from exc


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def git_state(folder: Path) -> GitState | None:
    """The state of the git work tree round a folder; None if there is none, or no git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = _git(folder, "rev-parse", "HEAD")
        status = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return GitState(commit=commit, dirty=bool(status))
    return None


def render_provenance(
    *,
    facts: ModelFacts,
    model_path: Path,
    model_digest: str,
    data_path: Path,
    dataset: Dataset,
    recipe: Recipe,
    git: GitState | None,
    command: Sequence[str],
) -> bytes:
    """Write the provenance, canonically."""
    packages: dict[str, JsonValue] = {**facts.packages, **_installed(_OURS)}
    document: dict[str, JsonValue] = {
        "model": {
            "file": model_path.name,
            "digest": model_digest,
            "framework": facts.framework,
            "description": facts.description,
        },
        "data": {
            "file": data_path.name,
            "digest": dataset.digest,
            "format": dataset.format,
            "rows": dataset.rows,
        },
        "packages": packages,
        "python": platform.python_version(),
        "command": [_without_folders(argument) for argument in command],
        "recipe": recipe.digest or None,
        "git": None if git is None else {"commit": git.commit, "dirty": git.dirty},
    }
    return strict_json.render(document) + b"\n"


def _installed(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _without_folders(argument: str) -> str:
    """Cut absolute paths to their last part, also behind an `=`."""
    option, equals, value = argument.partition("=")
    if equals and PurePath(value).is_absolute():
        return f"{option}={PurePath(value).name}"
    return PurePath(argument).name if PurePath(argument).is_absolute() else argument


def _git(folder: Path, *arguments: str) -> str:
    # fsmonitor would run a program that the work tree's own configuration names.
    answer = subprocess.run(
        ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],  # noqa: S607
        capture_output=True,
        check=True,
        timeout=_GIT_TIMEOUT_S,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return answer.stdout.decode(errors="replace").strip()
