"""Keeps lines off the error stream that a library writes there past any log handler."""

import contextlib
import os
import threading
from collections.abc import Iterator

_MAX_BYTES = 1 << 20
_lock = threading.Lock()
_seen: set[bytes] = set()


@contextlib.contextmanager
def without_line(words: bytes) -> Iterator[None]:
    """Hold back, once in a process, the line with these words; write all else when the block ends.

    What other threads write to the stream meanwhile is held back as well: the block must be short.
    """
    if words in _seen:
        yield
        return
    with _lock, contextlib.ExitStack() as stack:
        try:
            stream = os.dup(2)
        except OSError:  # there is no error stream
            yield
            return
        stack.callback(os.close, stream)
        # Memory, not a pipe: a process that is started meanwhile inherits it and may write later.
        memory = hasattr(os, "memfd_create")
        sink = os.memfd_create("stderr") if memory else os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, sink)
        os.dup2(sink, 2)
        try:
            yield
        finally:
            os.dup2(stream, 2)
            if memory:
                os.lseek(sink, 0, os.SEEK_SET)
            lines = os.read(sink, _MAX_BYTES).splitlines(keepends=True)
            if any(words in line for line in lines):
                _seen.add(words)
            rest = b"".join(line for line in lines if words not in line)
            if rest:
                os.write(stream, rest)
