"""Bundles to and from a registry: what is there already is not sent again.

Blocking, unlike the rest of the fleet: one conversation with one server.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle import (
    Bundle,
    Descriptor,
    bundle_filename,
    check_blob,
    digest_of,
    media_types,
    write_atomically,
)
from edgepack.bundle.archive import write_archive
from edgepack.bundle.blobs import LayoutBlobs
from edgepack.bundle.documents import parse_object, render_descriptor
from edgepack.bundle.index import parse_index
from edgepack.bundle.limits import (
    MAX_BUNDLE_BYTES,
    MAX_INDEX_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURES,
)
from edgepack.bundle.manifest import blobs_of_manifest, parse_manifest, parse_signature_manifest
from edgepack.fleet.errors import TargetError
from edgepack.trust import strict_json
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.errors import TransferError
from edgepack.wire.oci import Reference, Registry
from edgepack.wire.oci.reference import signature_tag, tag_of_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How far a push or a pull is, in bytes; `sent_bytes` is what really went over the line."""

    done_bytes: int
    total_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to.

    Attributes:
        reference: The bundle in the registry, by tag.
        digest: The bundle digest.
        total_bytes: Size of all its blobs.
        sent_bytes: What the registry did not have yet.
        signatures: How many signatures are there.
    """

    reference: str
    digest: str
    total_bytes: int
    sent_bytes: int
    signatures: int


OnTransfer = Callable[[Transfer], None]


def push(
    registry: Registry,
    reference: Reference,
    bundle: Bundle,
    *,
    mount_from: str | None = None,
    on_progress: OnTransfer = lambda _: None,
) -> Pushed:
    """Put a bundle and its signatures into a registry; its tag moves last.

    Args:
        registry: Where.
        reference: Its tag; without one it is the bundle's version.
        bundle: What.
        mount_from: Another repository there that may have some of the blobs.
        on_progress: Called as it goes on.

    Raises:
        TargetError: The reference names another digest.
        TransferError: The registry does not take it.
        BundleError: The bundle's bytes have changed.
    """
    if reference.digest not in (None, bundle.digest):
        raise TargetError(f"{reference} must be for {bundle.digest}, which the bundle is")
    manifests = {bundle.digest, *(ref.manifest.digest for ref in bundle.signatures)}
    blobs = [blob for blob in bundle.blobs() if blob.digest not in manifests]
    meter = _Meter(sum(blob.size_bytes for blob in blobs), on_progress)
    for blob in blobs:
        there = registry.has_blob(blob.digest) or (
            mount_from is not None and registry.mount(blob.digest, mount_from)
        )
        if there:
            meter.passed(blob.size_bytes, sent=False)
        else:
            registry.upload(blob.digest, blob.size_bytes, _metered(bundle, blob, meter))
    model = bundle.read_blob(bundle.digest)
    registry.put_manifest(bundle.digest, model)
    _put_signatures(registry, bundle)
    tag = reference.tag or tag_of_version(bundle.contract.version)
    registry.put_manifest(tag, model)
    return Pushed(
        reference=str(Reference(host=reference.host, repository=reference.repository, tag=tag)),
        digest=bundle.digest,
        total_bytes=meter.total_bytes,
        sent_bytes=meter.sent_bytes,
        signatures=len(bundle.signatures),
    )


def pull(
    registry: Registry,
    reference: Reference,
    output: Path,
    *,
    on_progress: OnTransfer = lambda _: None,
) -> tuple[Bundle, Path]:
    """Make a bundle's file of what a registry has; its signature is NOT verified.

    Args:
        registry: Where from.
        reference: By tag or digest.
        output: The file, or a folder to get NAME-VERSION.edgepack in it; what is there is kept.
        on_progress: Called as it goes on.

    Returns:
        The bundle and its file.

    Raises:
        TargetError: There is no such bundle, or something stands where the file is to be.
        TransferError: The registry does not give it.
        BundleError: What it gives is no bundle; then nothing is written.
    """
    name = reference.digest or reference.tag
    if name is None:
        raise TargetError(f"{reference} must name a tag or a digest", hint="append :VERSION")
    data = registry.manifest(name, MAX_MANIFEST_BYTES)
    if data is None:
        raise TargetError(f"{reference} is not there")
    model = Descriptor(digest=digest_of(data), size_bytes=len(data))
    if reference.digest is not None:
        check_blob(Descriptor(digest=reference.digest, size_bytes=len(data)), data)
    folder = output if output.is_dir() else output.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".edgepack-pull-") as scratch:
        layout = LayoutBlobs(Path(scratch))
        layout.path_of(model.digest).parent.mkdir(parents=True)
        signatures = _manifests(registry, model, data, layout)
        wanted = dict.fromkeys(parse_manifest(data).blobs)
        for signature in signatures:
            manifest = layout.path_of(signature.digest).read_bytes()
            wanted |= dict.fromkeys(blobs_of_manifest(manifest))
        total_bytes = sum(blob.size_bytes for blob in wanted)
        if total_bytes > MAX_BUNDLE_BYTES:
            raise TargetError(f"bundle must be at most {MAX_BUNDLE_BYTES} bytes, got {total_bytes}")
        meter = _Meter(total_bytes, on_progress)
        for blob in wanted:
            _pull_blob(registry, blob, layout.path_of(blob.digest), meter)
        made = write_archive(Path(scratch) / "bundle", layout, model, signatures)
        path = output / bundle_filename(made.contract) if output.is_dir() else output
        if path.exists():
            raise TargetError(f"{path} is there already", hint="name another file with -o")
        with write_atomically(path) as file, (Path(scratch) / "bundle").open("rb") as whole:
            while piece := whole.read(1 << 20):
                file.write(piece)
    return made, path


def _manifests(
    registry: Registry, model: Descriptor, data: bytes, layout: LayoutBlobs
) -> tuple[Descriptor, ...]:
    layout.path_of(model.digest).write_bytes(data)
    index = registry.referrers(model.digest, media_types.SIGNATURE_ARTIFACT, MAX_INDEX_BYTES)
    entries = () if index is None else parse_index(index)
    listed = {e.blob for e in entries if e.artifact_type == media_types.SIGNATURE_ARTIFACT}
    signatures = []
    for blob in sorted(listed)[:MAX_SIGNATURES]:
        manifest = registry.manifest(blob.digest, MAX_MANIFEST_BYTES)
        if manifest is None:
            continue
        check_blob(blob, manifest)
        if parse_signature_manifest(manifest).subject == model:
            layout.path_of(blob.digest).write_bytes(manifest)
            signatures.append(blob)
    return tuple(signatures)


def _pull_blob(registry: Registry, blob: Descriptor, path: Path, meter: "_Meter") -> None:
    with registry.blob(blob.digest) as (response, _), path.open("xb") as file:
        came = 0
        while piece := response.read():
            came += len(piece)
            if came > blob.size_bytes:
                raise TransferError(
                    f"blob {blob.digest} must have {blob.size_bytes} bytes, got more"
                )
            file.write(piece)
            meter.passed(len(piece), sent=True)


def _put_signatures(registry: Registry, bundle: Bundle) -> None:
    unlisted = []
    for ref in bundle.signatures:
        data = bundle.read_blob(ref.manifest.digest)
        if not registry.put_manifest(ref.manifest.digest, data):
            unlisted.append(ref.manifest)
    if not unlisted:
        return
    tag = signature_tag(bundle.digest)
    there = registry.manifest(tag, MAX_INDEX_BYTES)
    index = merged_index(there, unlisted)
    if index != there:
        registry.put_manifest(tag, index, media_types.INDEX)


def merged_index(there: bytes | None, signatures: list[Descriptor]) -> bytes:
    """The index of a manifest's referrers, with some signatures more; all else in it stays.

    Raises:
        BundleError: What is there is no index.
    """
    document: dict[str, JsonValue] = {
        "schemaVersion": 2,
        "mediaType": media_types.INDEX,
        "manifests": [],
    }
    if there is not None:
        parse_index(there)
        document = parse_object(there, what="referrers", max_bytes=MAX_INDEX_BYTES)
    listed = document["manifests"]
    assert isinstance(listed, list)
    known = {item.get("digest") for item in listed if isinstance(item, dict)}
    added: list[JsonValue] = [
        render_descriptor(
            signature, media_types.MANIFEST, artifactType=media_types.SIGNATURE_ARTIFACT
        )
        for signature in signatures
        if signature.digest not in known
    ]
    if there is not None and not added:
        return there
    return strict_json.render({**document, "manifests": [*listed, *added]})


class _Meter:
    def __init__(self, total_bytes: int, on_progress: OnTransfer) -> None:
        self.total_bytes = total_bytes
        self.sent_bytes = 0
        self._done_bytes = 0
        self._on_progress = on_progress

    def passed(self, size_bytes: int, *, sent: bool) -> None:
        self._done_bytes += size_bytes
        self.sent_bytes += size_bytes if sent else 0
        self._on_progress(
            Transfer(
                done_bytes=self._done_bytes,
                total_bytes=self.total_bytes,
                sent_bytes=self.sent_bytes,
            )
        )


def _metered(bundle: Bundle, blob: Descriptor, meter: _Meter) -> Iterator[bytes]:
    for piece in bundle.stream_blob(blob.digest):
        yield piece
        meter.passed(len(piece), sent=True)
