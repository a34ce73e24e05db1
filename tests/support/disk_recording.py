"""Every change that a process and its children make under a folder, as strace saw it.

The recording is checked against the folder that the process left: a system call that changes
files and is not known here cannot be overlooked.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disk_model import Disk, Tree

# Every call that changes what is on a disk; those that `replay` does not know make it fail.
_CALLS = (
    "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,"
    "splice,ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,sync_file_range,sync,syncfs,msync,lseek"
)
_ATTACH_S = 90.0  # an emulated or a crowded machine is slow
_NOWHERE = "/dev/null/note"
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?")
_UNFINISHED = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_WORD = re.compile(
    r' *(?:"((?:\\x[0-9a-f]{2})*)"|(-?\w+)?<((?:\\x[0-9a-f]{2}|\([a-z]+\))*)>|([^,]+))'
)


def strace_or_skip() -> None:
    """Skip where strace could not be installed (see the Makefile); fail where it is forgotten."""
    if shutil.which("strace") is None:
        if os.environ.get("EDGEPACK_WITHOUT_STRACE"):
            pytest.skip("strace is not installed, and could not be (see `make strace`)")
        pytest.fail("strace is not installed: apt-get install strace", pytrace=False)


def attach(log: Path, *inject: str) -> None:
    """Record this process and what it forks from now on.

    Args:
        log: Where to.
        inject: Faults to inject, as strace's `inject=` takes them.
    """
    options = ["-q", "-f", "-y", "-xx", "-s", "99999999", "-e", "signal=none"]
    options += [word for fault in inject for word in ("-e", f"inject={fault}")]
    tracer = subprocess.Popen(
        ["strace", *options, "-e", f"trace={_CALLS}", "-o", str(log), "-p", str(os.getpid())],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _ATTACH_S
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"strace does not attach: {tracer.poll()}")
        time.sleep(0.01)


def note(text: str) -> None:
    """Leave a line in the recording: a call that cannot succeed and changes nothing."""
    with contextlib.suppress(NotADirectoryError):
        Path(_NOWHERE, text).rmdir()


def wait_for_end(log: Path) -> None:
    """Wait until strace has written the end of what it was attached to."""
    deadline = time.monotonic() + _ATTACH_S
    ended = re.compile(r"\A(\d+) .*\n\1 +\+\+\+ exited", re.DOTALL)
    while not (log.exists() and ended.search(log.read_text())):
        if time.monotonic() > deadline:
            raise RuntimeError(f"strace does not end: {log}")
        time.sleep(0.01)


def read_tree(folder: Path) -> Tree:
    """A folder as the model has it; SQLite's shared memory means nothing after a restart."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if not path.name.endswith("-shm") and (path.is_dir() or path.is_file())
    }


def write_tree(folder: Path, tree: Tree) -> None:
    """Make a folder that is like a tree."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, data in sorted(tree.items()):
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


def replay(log: Path, folder: Path, disk: Disk) -> Iterator[str]:
    """Do on a model what was done under a folder, call by call.

    Yields:
        What was done, after each call that changed or synced something; and the notes.
    """
    player = _Player(folder, disk)
    for name, words, result, opened in _calls(log.read_text()):
        if name == "note":
            yield f"note {words[0]}"
            continue
        done = player.play(name, words, result, opened)
        if done:
            yield done


class _Player:
    def __init__(self, folder: Path, disk: Disk) -> None:
        self._prefix = f"{folder}/"
        self._disk = disk
        self._positions: dict[tuple[str, str], int] = {}

    def play(self, name: str, words: list[str], result: int, opened: str) -> str:
        if name in ("open", "openat", "creat"):
            return self._open(words, result, opened)
        if "(deleted)" in words:  # nobody will ever read it
            return ""
        paths = self._paths(name, words)
        if not any(path is not None for path in paths):
            return ""
        path = paths[0]
        if path is None or None in paths:
            raise NotImplementedError(f"{name} across the folder's border: {words}")
        if path.endswith("-shm"):
            return ""
        player = getattr(self, f"_{name}", None)
        if player is None:
            raise NotImplementedError(f"{name} is not modelled: {words[:3]}")
        player(paths, words, result)
        return "" if name == "lseek" else f"{name} {' '.join(map(str, paths))}"

    def _open(self, words: list[str], result: int, opened: str) -> str:
        path = self._ours(opened)
        flags = next((word for word in words if word.startswith("O_")), "O_RDONLY")
        if path is None or "O_DIRECTORY" in flags:
            return ""
        node = self._disk.find(path)
        self._positions[(str(result), path)] = -1 if "O_APPEND" in flags else 0
        if path.endswith("-shm"):
            return ""
        if node is None:
            assert "O_CREAT" in flags, (path, flags)
            self._disk.create(path)
            return f"create {path}"
        if "O_TRUNC" in flags:
            self._disk.file(path).truncate(0)
            return f"truncate {path}"
        return ""

    def _paths(self, name: str, words: list[str]) -> list[str | None]:
        if name in ("rename", "link", "unlink", "rmdir", "mkdir", "truncate", "symlink"):
            count = 2 if name in ("rename", "link", "symlink") else 1
            return [self._ours(word.partition("|")[2]) for word in words[:count]]
        if name in ("renameat", "renameat2", "linkat"):
            return [self._at(words[0], words[1]), self._at(words[2], words[3])]
        if name in ("unlinkat", "mkdirat", "symlinkat"):
            return [self._at(words[0], words[1])]
        if name in ("sync", "syncfs"):
            raise NotImplementedError(f"{name} is not modelled")
        if "|" not in words[0]:
            return [None]
        return [self._ours(words[0].partition("|")[2])]

    def _at(self, folder: str, name: str) -> str | None:
        text = name.partition("|")[2]
        return self._ours(text if text.startswith("/") else f"{folder.partition('|')[2]}/{text}")

    def _ours(self, path: str) -> str | None:
        if path + "/" == self._prefix:
            return ""
        return path.removeprefix(self._prefix) if path.startswith(self._prefix) else None

    def _write(self, paths: list[str], words: list[str], result: int) -> None:
        key = (words[0].partition("|")[0], paths[0])
        file = self._disk.file(paths[0])
        position = self._positions[key]
        append = position < 0
        offset = len(file.data) if append else position
        file.write(offset, _block(words[1])[:result])
        self._positions[key] = -1 if append else offset + result

    def _pwrite64(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.file(paths[0]).write(int(words[3]), _block(words[1])[:result])

    def _lseek(self, paths: list[str], words: list[str], result: int) -> None:
        key = (words[0].partition("|")[0], paths[0])
        if self._positions.get(key, 0) >= 0:
            self._positions[key] = result

    def _ftruncate(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.file(paths[0]).truncate(int(words[1]))

    def _fsync(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.sync(paths[0])

    _fdatasync = _fsync

    def _rename(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.rename(*paths)

    _renameat = _renameat2 = _rename

    def _link(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.link(*paths)

    _linkat = _link

    def _unlink(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.remove(paths[0])

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, paths: list[str], words: list[str], result: int) -> None:
        self._disk.make_folder(paths[0])

    _mkdirat = _mkdir


def _calls(text: str) -> Iterator[tuple[str, list[str], int, str]]:
    """Each call that succeeded: name, arguments, result, path of what was opened.

    An argument that is a path or text is `|TEXT`, an open file is `NUMBER|PATH`.
    """
    waiting: dict[str, str] = {}
    for line in text.splitlines():
        if match := _UNFINISHED.match(line):
            waiting[match[1]] = match[3]
            continue
        resumed = _RESUMED.match(line)
        whole = (
            f"{resumed[1]} {resumed[2]}({waiting.pop(resumed[1])}{resumed[3]}" if resumed else line
        )
        match = _CALL.match(whole)
        if match is None:
            continue
        if int(match[4]) < 0:
            if match[2] == "rmdir" and f"|{_NOWHERE}/" in (word := _words(match[3])[0]):
                yield "note", [word.removeprefix(f"|{_NOWHERE}/")], 0, ""
            continue
        yield match[2], _words(match[3]), int(match[4]), _text(match[5] or "")


def _words(arguments: str) -> list[str]:
    words = []
    for text, number, path, plain in _WORD.findall(arguments):
        if plain.strip():
            words.append(plain.strip())
        elif number or path:
            words.append(f"{number}|{_text(path)}")
        elif not plain:
            words.append("|" + text if _is_block(text) else "|" + _text(text))
    return words


def _is_block(text: str) -> bool:
    return len(text) > 4 * 4096


def _text(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode("utf-8", "surrogateescape")


def _block(word: str) -> bytes:
    return word[1:].encode("utf-8", "surrogateescape")
