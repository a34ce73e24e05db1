"""Sign a bundle: the signature is a manifest of its own, so the bundle's digest stays."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgepack.bundle.archive import open_bundle, write_archive
from edgepack.bundle.blobs import BlobSource
from edgepack.bundle.descriptor import describe
from edgepack.bundle.manifest import (
    EMPTY_DOCUMENT,
    SignatureManifest,
    render_signature_manifest,
)
from edgepack.bundle.pack import MemoryBlobs
from edgepack.bundle.statement import MAX_SEQUENCE, Statement, render_statement
from edgepack.trust import STATEMENT_PAYLOAD_TYPE, PrivateKey, dsse
from edgepack.trust.values import dataclass


def sign_bundle(path: str | os.PathLike[str], key: PrivateKey, *, sequence: int) -> None:
    """Add a signature to a bundle's file, which is replaced atomically.

    The bundle digest does not change. Signing again with the same key and sequence changes
    nothing. Keys that are to reach a threshold together sign with the same sequence.

    Args:
        path: The bundle.
        key: A key of the release role.
        sequence: The time of signing in seconds since 1970; see `signing_sequence`.

    Raises:
        BundleError: The file is not a bundle, or has too many signatures already.
        BundleWriteError: The disk refused.
    """
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"sequence must be 0 to {MAX_SEQUENCE} seconds, got {sequence}")
    bundle = open_bundle(path)
    statement = Statement(
        name=bundle.contract.name,
        version=bundle.contract.version,
        sequence=sequence,
        digest=bundle.digest,
    )
    envelope = dsse.sign(render_statement(statement), STATEMENT_PAYLOAD_TYPE, [key])
    manifest = render_signature_manifest(
        SignatureManifest(subject=bundle.manifest_blob, envelope=describe(envelope))
    )
    before = {ref.manifest for ref in bundle.signatures}
    if describe(manifest) in before:
        return
    new = MemoryBlobs(
        {describe(blob).digest: blob for blob in (manifest, envelope, EMPTY_DOCUMENT)}
    )
    write_archive(
        Path(path),
        _Both(new, bundle.source),
        bundle.manifest_blob,
        tuple(sorted({*before, describe(manifest)})),
    )


def signing_sequence(environment: Mapping[str, str] = os.environ) -> int:
    """Tell the sequence to sign with now: `SOURCE_DATE_EPOCH` if it is set, else the clock.

    Raises:
        ValueError: `SOURCE_DATE_EPOCH` is not a number of seconds.
    """
    text = environment.get("SOURCE_DATE_EPOCH")
    if not text:
        return int(time.time())
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEQUENCE:
        raise ValueError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {text[:40]!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Both:
    """The new signature's blobs before those of the file that is there."""

    new: MemoryBlobs
    old: BlobSource

    def size_of(self, digest: str) -> int:
        return self._holder(digest).size_of(digest)

    def chunks(self, digest: str) -> Iterator[bytes]:
        return self._holder(digest).chunks(digest)

    def _holder(self, digest: str) -> BlobSource:
        return self.new if digest in self.new.data else self.old
