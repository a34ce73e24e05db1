"""A disk that keeps only what it was told to keep: what may be left after a power cut.

POSIX promises little: the content of a file is safe after fsync of the file, its name after fsync
of the folder. What was not synced may be there or not, in part, in any order. This model keeps
for each file and folder what is there now and what is safe, and gives the states that a power cut
may leave: by the worst case, and by the mixtures that broke real programs (a new name with no or
torn or zeroed content, a later write kept and an earlier one lost).

What it does NOT model: sectors that a controller lost although it acknowledged the sync, more than
one torn file at a time, and every subset of what was pending (there are exponentially many).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Tree = dict[str, bytes | None]  # path → content, None for a folder


@dataclass(eq=False)
class File:
    """A file: `data` is what a process reads, `safe` what a power cut leaves at least."""

    data: bytes = b""
    safe: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut to offset

    def write(self, offset: int, block: bytes) -> None:
        self.data = _written(self.data, offset, block)
        self.pending.append((offset, block))

    def truncate(self, size: int) -> None:
        self.data = _cut(self.data, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        self.safe = self.data
        self.pending.clear()

    def torn(self) -> bytes:
        """All but half of the last write."""
        data = self.safe
        for offset, block in self.pending[:-1]:
            data = _cut(data, offset) if block is None else _written(data, offset, block)
        offset, block = self.pending[-1]
        return data if block is None else _written(data, offset, block[: len(block) // 2])

    def last_only(self) -> bytes:
        """The last write reached the disk, those before it did not."""
        offset, block = self.pending[-1]
        return _cut(self.safe, offset) if block is None else _written(self.safe, offset, block)

    def zeroed(self) -> bytes:
        """The size is new, the blocks are not."""
        data = self.safe[: len(self.data)]
        return data + bytes(len(self.data) - len(data))


@dataclass(eq=False)
class Folder:
    """A folder: names that are there now, and names that are safe."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list["Change"] = field(default_factory=list)

    def sync(self) -> None:
        """Every change that touches this folder is safe, whole."""
        for change in list(self.pending):
            change.apply(lambda folder: folder.safe)
            for folder, _, _ in change.entries:
                if change in folder.pending:
                    folder.pending.remove(change)


@dataclass(eq=False)
class Change:
    """Names that change together: (folder, name, what it names now or None)."""

    entries: list[tuple[Folder, str, File | Folder | None]]

    def apply(self, names_of: Callable[[Folder], dict[str, "File | Folder"]]) -> None:
        for folder, name, node in self.entries:
            if node is None:
                names_of(folder).pop(name, None)
            else:
                names_of(folder)[name] = node


class Disk:
    """A file system under one root folder; paths are relative, "" is the root.

    Args:
        tree: What is there, all of it safe.
    """

    def __init__(self, tree: Tree) -> None:
        self.root = Folder()
        for path, data in sorted(tree.items()):
            node: File | Folder = Folder() if data is None else File(data, data)
            folder, name = self._place(path)
            folder.names[name] = folder.safe[name] = node

    def find(self, path: str) -> File | Folder | None:
        """What is at a path now."""
        node: File | Folder | None = self.root
        for name in path.split("/") if path else ():
            node = node.names.get(name) if isinstance(node, Folder) else None
        return node

    def file(self, path: str) -> File:
        node = self.find(path)
        assert isinstance(node, File), path
        return node

    def create(self, path: str) -> None:
        self._change((path, File()))

    def make_folder(self, path: str) -> None:
        self._change((path, Folder()))

    def remove(self, path: str) -> None:
        self._change((path, None))

    def link(self, old: str, new: str) -> None:
        self._change((new, self.find(old)))

    def rename(self, old: str, new: str) -> None:
        self._change((new, self.find(old)), (old, None))

    def sync(self, path: str) -> None:
        """Fsync of a file or a folder."""
        node = self.find(path)
        assert node is not None, path
        node.sync()

    def now(self) -> Tree:
        """What a process sees: what is left when only the process dies."""
        return _tree(self.root, lambda folder: folder.names, lambda file: file.data)

    def worst(self) -> Tree:
        """Nothing is left that was not synced."""
        return _tree(self.root, lambda folder: folder.safe, lambda file: file.safe)

    def after_power_cut(self) -> Iterator[tuple[str, Tree]]:
        """States that a power cut may leave now: what was kept, and the tree."""
        yield "nothing", self.worst()
        yield "all", self.now()
        files, changes = self._pending()
        yield "names", self._mixed(lambda file: file.safe)
        yield "content", _tree(self.root, lambda folder: folder.safe, lambda file: file.data)
        for file in files:
            yield "names, one torn", self._mixed(_one(file, file.torn(), others=True))
            yield "names, one zeroed", self._mixed(_one(file, file.zeroed(), others=True))
            yield "names, one lost", self._mixed(_one(file, file.safe, others=True))
            yield "names, one alone", self._mixed(_one(file, file.data, others=False))
            yield "names, last write alone", self._mixed(_one(file, file.last_only(), others=True))
        for change in changes:
            yield "one name", self._with_one(change)

    def _mixed(self, data_of: Callable[[File], bytes]) -> Tree:
        return _tree(self.root, lambda folder: folder.names, data_of)

    def _with_one(self, change: Change) -> Tree:
        changed: dict[int, dict[str, File | Folder]] = {}

        def names_of(folder: Folder) -> dict[str, File | Folder]:
            return changed.get(id(folder), folder.safe)

        for folder, _, _ in change.entries:
            changed.setdefault(id(folder), dict(folder.safe))
        change.apply(names_of)
        return _tree(self.root, names_of, lambda file: file.safe)

    def _pending(self) -> tuple[list[File], list[Change]]:
        files: list[File] = []
        changes: list[Change] = []
        folders = [self.root]
        while folders:
            folder = folders.pop()
            changes += [change for change in folder.pending if change not in changes]
            for node in folder.names.values():
                if isinstance(node, Folder):
                    folders.append(node)
                elif node.pending and node not in files:
                    files.append(node)
        return files, changes

    def _change(self, *entries: tuple[str, File | Folder | None]) -> None:
        change = Change([(*self._place(path), node) for path, node in entries])
        change.apply(lambda folder: folder.names)
        for folder in {id(folder): folder for folder, _, _ in change.entries}.values():
            folder.pending.append(change)

    def _place(self, path: str) -> tuple[Folder, str]:
        parent, _, name = path.rpartition("/")
        folder = self.find(parent)
        assert isinstance(folder, Folder), path
        return folder, name


def _one(chosen: File, data: bytes, *, others: bool) -> Callable[[File], bytes]:
    def data_of(file: File) -> bytes:
        if file is chosen:
            return data
        return file.data if others else file.safe

    return data_of


def _tree(
    root: Folder,
    names_of: Callable[[Folder], dict[str, File | Folder]],
    data_of: Callable[[File], bytes],
) -> Tree:
    tree: Tree = {}

    def walk(folder: Folder, prefix: str) -> None:
        for name, node in names_of(folder).items():
            if isinstance(node, Folder):
                tree[prefix + name] = None
                walk(node, f"{prefix}{name}/")
            else:
                tree[prefix + name] = data_of(node)

    walk(root, "")
    return tree


def _written(data: bytes, offset: int, block: bytes) -> bytes:
    padded = data + bytes(max(0, offset - len(data)))
    return padded[:offset] + block + padded[offset + len(block) :]


def _cut(data: bytes, size: int) -> bytes:
    return data[:size] + bytes(max(0, size - len(data)))
