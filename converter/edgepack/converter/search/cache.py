"""What child processes answered before, by the content of what they were asked.

A repeated conversion takes unchanged stages from here. An answer's key binds everything that it
depends on: the question, the model's files, the installed packages and edgepack's own code.
"""

import contextlib
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from edgepack.converter.errors import (
    ConvertError,
    UnfitDataError,
    UnsupportedModelError,
    WorkerError,
)
from edgepack.converter.worker_messages import Message, read_message, write_message
from edgepack.trust.strict_json import render

MOST_BYTES = 2 << 30
_DIGEST_BYTES = 32
_REFUSALS: dict[str, type[ConvertError]] = {
    kind.__name__: kind for kind in (UnsupportedModelError, UnfitDataError)
}
_MOST_NEIGHBOURS = 4096
_INSTALLED = (".dist-info", ".egg-info")


class AnswerCache:
    """Answers on disk; a damaged, vanished or unwritable one is a missing one.

    Args:
        folder: Where; None for no cache at all.
        most_bytes: What it may hold; the answers that were not used for longest go first.
    """

    def __init__(self, folder: Path | None, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(self, key: str) -> Message | None:
        """The answer to a question, or None."""
        if self._folder is None:
            return None
        path = self._folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
            digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if hashlib.sha256(body).digest() == digest:
                return read_message(io.BytesIO(body))
        except OSError:
            return None
        except WorkerError:
            pass
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def find(self, find_key: Callable[[], str]) -> Message | None:
        """`get`, with a key that is only made where there is a cache."""
        return None if self._folder is None else self.get(find_key())

    def keep(self, find_key: Callable[[], str], message: Message) -> None:
        """`put`, with a key that is only made where there is a cache."""
        if self._folder is not None:
            self.put(find_key(), message)

    def put(self, key: str, message: Message) -> None:
        """Keep an answer; a full or read-only disk is no reason to fail."""
        if self._folder is None:
            return
        buffer = io.BytesIO()
        write_message(buffer, message)
        body = buffer.getvalue()
        if len(body) > self._most_bytes // 4:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(body).digest())
                    file.write(body)
                Path(name).replace(self._folder / key)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            self._prune()

    def answer(self, find_key: Callable[[], str], ask: Callable[[], Message]) -> Message:
        """The answer that is known, or else the one that `ask` gives, which is kept.

        That a model or its rows cannot be taken is an answer too: it is raised again.

        Raises:
            UnsupportedModelError, UnfitDataError: So it was answered, now or before.
            ConvertError: From `ask`.
        """
        if self._folder is None:
            return ask()
        key = find_key()
        known = self.get(key)
        if known is None:
            try:
                known = ask()
            except tuple(_REFUSALS.values()) as exc:
                self.put(key, Message(kind=type(exc).__name__, fields={"message": str(exc)}))
                raise
            self.put(key, known)
        if known.kind in _REFUSALS:
            raise _REFUSALS[known.kind](str(known.fields.get("message")))
        return known

    def _prune(self) -> None:
        if self._folder is None:
            return
        found = []
        for item in self._folder.iterdir():
            with contextlib.suppress(OSError):
                state = item.stat()
                found.append((state.st_mtime_ns, state.st_size, item))
        total = sum(size for _, size, _ in found)
        for _, size, item in sorted(found):
            if total <= self._most_bytes:
                return
            item.unlink(missing_ok=True)
            total -= size


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/edgepack/convert`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return home / "edgepack" / "convert"


def key_of(message: Message, *context: str) -> str:
    """The key of a question, in a context (the model's digest)."""
    digest = hashlib.sha256()
    for text in (_environment(), *context, message.kind):
        digest.update(f"{len(text)}:{text}".encode())
    digest.update(render(dict(message.fields)))
    for name, array in message.arrays.items():
        digest.update(f"\n{name}:{array.dtype}:{array.shape}\n".encode())
        if array.dtype.kind in "OU":
            for text in array.ravel().tolist():
                encoded = str(text).encode()
                digest.update(len(encoded).to_bytes(4, "little") + encoded)
        else:
            digest.update(array.tobytes())
    return digest.hexdigest()


def state_of(path: Path) -> str:
    """What a model's answers may depend on besides its own bytes: the files beside it.

    Weights may lie in a second file; their names, sizes and times stand for them.
    """
    digest = hashlib.sha256()
    for line in sorted(_listing(path)):
        digest.update(line.encode())
    return digest.hexdigest()


def _listing(path: Path) -> Iterator[str]:
    root = path if path.is_dir() else path.absolute().parent
    files = root.rglob("*") if path.is_dir() else root.iterdir()
    for number, item in enumerate(files):
        if number >= _MOST_NEIGHBOURS:
            return
        with contextlib.suppress(OSError):
            if item.is_file() and (path.is_dir() or item.name.startswith(path.stem)):
                state = item.stat()
                yield f"{item.relative_to(root)}|{state.st_size}|{state.st_mtime_ns}\n"


@cache
def _environment() -> str:
    """The packages that are installed, and the state of edgepack's own code."""
    lines = [sys.version]
    for folder in sys.path:  # the names say package and version; reading each would take a second
        with contextlib.suppress(OSError):
            lines += [item for item in os.listdir(folder) if item.endswith(_INSTALLED)]  # noqa: PTH208
    package = Path(__file__).parents[1]
    for source in package.rglob("*.py"):
        state = source.stat()
        lines.append(f"{source.name}|{state.st_size}|{state.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
