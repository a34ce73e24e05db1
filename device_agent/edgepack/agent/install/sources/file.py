"""`file:/PATH`: a bundle's archive on a disk that this device sees."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgepack.agent.errors import FetchError
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.sources.archive import Archive
from edgepack.agent.install.sources.source import Described
from edgepack.bundle.blobs import open_regular
from edgepack.wire.desired import BlobRef

_READ_BYTES = 1024 * 1024


class FileReader:
    """A file, open as long as its bytes are wanted.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._stack = contextlib.ExitStack()
        self._file, self.size_bytes = self._stack.enter_context(open_regular(path))

    def read(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """So many bytes from there on.

        Raises:
            FetchError: The file ends before, or cannot be read.
        """
        left = size_bytes
        while left:
            try:
                data = os.pread(self._file.fileno(), min(left, _READ_BYTES), offset)
            except OSError as exc:
                raise FetchError(f"{self.name} cannot be read: {exc.strerror}") from exc
            if not data:
                raise FetchError(f"{self.name} ends {left} bytes too early")
            yield data
            offset += len(data)
            left -= len(data)

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()


class FileSource:
    """A local archive.

    Args:
        source: "file:/PATH", percent-encoded.
        digest: The wanted bundle.
    """

    def __init__(self, source: str, digest: str) -> None:
        self._source = source
        self._digest = digest
        self._reader: FileReader | None = None
        self._archive: Archive | None = None

    def describe(self, landing: Landing) -> Described:
        """Look what is there."""
        del landing  # nothing lands: reading it again costs nothing
        self._reader = FileReader(local_path(self._source))
        self._archive = Archive(self._reader)
        return self._archive.describe(self._digest)

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Read blobs."""
        assert self._archive is not None
        self._archive.get(refs, landing)

    def stop(self) -> None:
        """A disk needs no telling: the next write is refused."""

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()


def local_path(source: str) -> Path:
    """The file that a source names.

    Raises:
        FetchError: It is not there.
    """
    try:
        path = Path(unquote(urlsplit(source).path))
        if not path.is_file():
            raise FetchError(f"file {path} does not exist")
    except (OSError, ValueError) as exc:  # no permission, a name that is too long
        raise FetchError(f"{source[:200]} cannot be read: {exc}") from exc
    return path
