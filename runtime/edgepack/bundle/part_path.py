"""Paths of files inside a bundle: safe on every file system that a bundle may be extracted to."""

import re

from edgepack.bundle.errors import DuplicateError, ManifestError, TraversalError

MAX_PATH_LENGTH = 255
MAX_SEGMENTS = 8
# No leading dot (hidden files), no leading dash (options), no trailing dot (Windows drops it).
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]{0,98}[A-Za-z0-9_+-])?", re.ASCII)
_SHOWN = 80


def check_path(path: str) -> str:
    """Give the path back if it is one that a file in a bundle may have.

    Raises:
        TraversalError: It is absolute, or a part of it is `..`.
        ManifestError: It breaks another rule.
    """
    segments = path.split("/")
    if path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", path) or path[1:2] == ":":
        raise TraversalError(f"path {path[:_SHOWN]!r} leads out of the bundle")
    if len(path) > MAX_PATH_LENGTH or len(segments) > MAX_SEGMENTS:
        raise ManifestError(
            f"path {path[:_SHOWN]!r} must have at most {MAX_PATH_LENGTH} characters "
            f"and {MAX_SEGMENTS} parts"
        )
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ManifestError(
            f"path {path[:_SHOWN]!r} must have parts of [A-Za-z0-9_.+-] that begin with a letter, "
            "digit or underscore and do not end with a dot"
        )
    return path


def check_paths(paths: tuple[str, ...]) -> None:
    """Refuse paths that cannot all be files in one folder, on any file system.

    Raises:
        TraversalError, ManifestError: As `check_path`.
        DuplicateError: Two are the same but for letter case, or one is the other's folder.
    """
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(check_path(path).casefold(), path)
        if other is not path:
            raise DuplicateError(f"path {path[:_SHOWN]!r} stands twice ({other[:_SHOWN]!r})")
    for path in paths:
        folder = path.casefold()
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in seen:
                raise DuplicateError(f"path {seen[folder][:_SHOWN]!r} is a file and a folder")
