"""Following root.json from version to version, as TUF's clients do (TUF 1.0.33, section 5.3).

A device is given one root by hand, its anchor. Every later one is kept in a folder, one file for
each version, and counts only as far as each is signed under the one before: a folder that
somebody wrote into proves nothing by itself.
"""

from pathlib import Path

from edgepack.trust.errors import KeyFileError, RootError
from edgepack.trust.key_files import read_small
from edgepack.trust.root import Root
from edgepack.trust.root_document import MAX_ROOT_BYTES, read_document

MAX_STEPS = 1024  # of rotations between an anchor and today's root


def chain_file(folder: Path, version: int) -> Path:
    """Where the root of one version is kept."""
    return folder / f"root.{version}.json"


def follow_chain(anchor: Root, folder: Path) -> Root:
    """The newest root that the kept ones lead to from the anchor.

    What does not follow from the anchor (a damaged file, or one of an anchor that was exchanged
    since) ends the way there; it is not an error, because the anchor still holds.
    """
    root = anchor
    for _ in range(MAX_STEPS):
        try:
            data = read_small(chain_file(folder, root.version + 1), max_bytes=MAX_ROOT_BYTES)
            root = root.update(data)
        except (KeyFileError, RootError):
            break
    return root


def newest_kept(anchor: bytes, folder: Path) -> bytes:
    """What `follow_chain` will most likely end at, by version numbers alone: nothing is verified.

    For knowing what to ask for without loading `cryptography`, never for trusting.

    Raises:
        RootError: The anchor is not even a root.json.
    """
    newest, version = anchor, read_document(anchor).version
    for _ in range(MAX_STEPS):
        try:
            data = read_small(chain_file(folder, version + 1), max_bytes=MAX_ROOT_BYTES)
            version = read_document(data).version
        except (KeyFileError, RootError):
            break
        newest = data
    return newest
