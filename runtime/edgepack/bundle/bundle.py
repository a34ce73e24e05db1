"""A bundle that has been read: what it says of itself, and a way to its bytes.

`assemble` is the one place that decides whether manifests, contract and blobs belong together,
wherever the blobs lie.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path

from edgepack.bundle.blobs import BlobSource, locate_verified, read_verified, verified_chunks
from edgepack.bundle.contract import Contract
from edgepack.bundle.contract_codec import parse_contract
from edgepack.bundle.descriptor import Descriptor
from edgepack.bundle.documents import check_document_size
from edgepack.bundle.errors import (
    BundleLimitError,
    ContractError,
    DigestError,
    DuplicateError,
    ForeignSignatureError,
    ManifestError,
    MissingBlobError,
)
from edgepack.bundle.index import LAYOUT, render_index
from edgepack.bundle.limits import MAX_BUNDLE_BYTES, MAX_MANIFEST_BYTES, MAX_SIGNATURES
from edgepack.bundle.manifest import (
    EMPTY_BLOB,
    Layer,
    Manifest,
    parse_manifest,
    parse_signature_manifest,
)
from edgepack.bundle.model_config import check_model_config
from edgepack.bundle.tar_header import END, member_bytes
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRef:
    """A signature of the bundle, not yet verified.

    Attributes:
        manifest: The signature's manifest: what a device fetches it by.
        envelope: The DSSE envelope in it.
    """

    manifest: Descriptor
    envelope: Descriptor

    @property
    def digest(self) -> str:
        """The digest of its manifest."""
        return self.manifest.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose structure has been checked; its signatures have not.

    Attributes:
        digest: Its identity, "sha256:HEX": the digest of the model's manifest.
        manifest_blob: The model's manifest as a blob; its digest is the bundle's.
        manifest: What the manifest says.
        contract: What the model promises.
        signatures: In the order of their digests.
        source: Where the blobs are. Two bundles are equal wherever they lie.
    """

    manifest_blob: Descriptor
    manifest: Manifest
    contract: Contract
    signatures: tuple[SignatureRef, ...]
    source: BlobSource = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return self.manifest_blob.digest

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all its files."""
        return tuple(layer.path for layer in self.manifest.layers)

    @property
    def size_bytes(self) -> int:
        """The size of the bundle as a file, wherever it lies now."""
        index = render_index(
            self.manifest_blob,
            self.contract.version,
            tuple(signature.manifest for signature in self.signatures),
        )
        sizes = [len(LAYOUT), len(index), *(blob.size_bytes for blob in self.blobs())]
        return sum(map(member_bytes, sizes)) + len(END)

    def blobs(self) -> tuple[Descriptor, ...]:
        """Give every blob of the bundle once, in ascending order of digest."""
        named = {self.manifest_blob, *self.manifest.blobs}
        for signature in self.signatures:
            named |= {signature.manifest, signature.envelope, EMPTY_BLOB}
        return tuple(sorted(named))

    def layer(self, path: str) -> Layer:
        """Find a file of the bundle.

        Raises:
            ManifestError: There is none at that path.
        """
        for layer in self.manifest.layers:
            if layer.path == path:
                return layer
        raise ManifestError(f"the bundle has no file {path[:80]!r}")

    def read(self, path: str) -> bytes:
        """Read a file of the bundle into memory and verify it.

        Raises:
            ManifestError: There is none at that path.
            BundleError: Its bytes are gone or have changed since the bundle was opened.
        """
        return read_verified(self.source, self.layer(path).blob)

    def locate(self, path: str, *, hash_it: bool = True) -> Path | None:
        """Verify a file of the bundle and tell where it lies, if it is one of its own on disk.

        In a device's store every file is, by the name of its SHA-256, and nobody changes it: it
        may be mapped instead of read.

        Args:
            path: In the bundle.
            hash_it: False compares its size only: for a store that was hashed when it was filled.

        Returns:
            Its place, or None in an archive.

        Raises:
            ManifestError: There is none at that path.
            BundleError: Its bytes are gone or have changed since the bundle was opened.
        """
        return locate_verified(self.source, self.layer(path).blob, hash_it=hash_it)

    def read_blob(self, digest: str) -> bytes:
        """Read a blob of the bundle into memory and verify it.

        Raises:
            MissingBlobError: The bundle has no such blob.
            BundleError: Its bytes are gone or have changed since the bundle was opened.
        """
        return read_verified(self.source, self._blob(digest))

    def stream_blob(self, digest: str) -> Iterator[bytes]:
        """Give a blob in pieces of at most 1 MiB; it is verified when the last has been taken.

        Raises:
            BundleError: As `read_blob`, but possibly after the first pieces.
        """
        return verified_chunks(self.source, self._blob(digest))

    def _blob(self, digest: str) -> Descriptor:
        for blob in self.blobs():
            if blob.digest == digest:
                return blob
        raise MissingBlobError(f"blob {digest[:80]!r} is not of this bundle", digest=digest)


def assemble(source: BlobSource, manifest: Descriptor, signatures: Iterable[Descriptor]) -> Bundle:
    """Read manifests and contract and check that they belong together.

    Every blob's size is compared; of the blobs only the documents are read. The caller hashes the
    rest if it does not trust the place that they lie in.

    Args:
        source: Where the blobs are.
        manifest: The model's manifest.
        signatures: The manifests of its signatures.

    Raises:
        BundleError: Something does not belong together, is missing, or does not fit its digest.
    """
    parsed = parse_manifest(_read_manifest(source, manifest))
    refs = _signatures(source, manifest, tuple(signatures))
    contract = parse_contract(read_verified(source, parsed.contract.blob))
    check_model_config(read_verified(source, parsed.config), contract, parsed)
    _check_files(contract, parsed)
    bundle = Bundle(
        manifest_blob=manifest, manifest=parsed, contract=contract, signatures=refs, source=source
    )
    _check_sizes(bundle)
    return bundle


def _signatures(
    source: BlobSource, model: Descriptor, manifests: tuple[Descriptor, ...]
) -> tuple[SignatureRef, ...]:
    if len(manifests) > MAX_SIGNATURES:
        raise BundleLimitError(
            f"a bundle has at most {MAX_SIGNATURES} signatures, got {len(manifests)}"
        )
    refs = []
    for descriptor in sorted(set(manifests)):
        parsed = parse_signature_manifest(_read_manifest(source, descriptor))
        if parsed.subject != model:
            raise ForeignSignatureError(
                f"signature {descriptor.digest} is for {parsed.subject.digest}, "
                f"this bundle is {model.digest}"
            )
        refs.append(SignatureRef(manifest=descriptor, envelope=parsed.envelope))
    return tuple(refs)


def _read_manifest(source: BlobSource, manifest: Descriptor) -> bytes:
    check_document_size("manifest", manifest, MAX_MANIFEST_BYTES)
    return read_verified(source, manifest)


def _check_files(contract: Contract, manifest: Manifest) -> None:
    sizes = {layer.path: layer.blob.size_bytes for layer in manifest.layers}
    named = {path for variant in contract.variants for path in variant.files}
    named |= {contract.golden} | ({contract.reference} if contract.reference else set())
    problems = [
        f"names the file {path[:80]!r}, which the bundle does not have"
        for path in sorted(named - sizes.keys())
    ]
    for variant in contract.variants:
        total = sum(sizes.get(path, 0) for path in variant.files)
        if not problems and total != variant.size_bytes:
            problems.append(
                f"variant {variant.name!r}: size_bytes must be {total}, got {variant.size_bytes}"
            )
    if problems:
        raise ContractError(*problems)


def _check_sizes(bundle: Bundle) -> None:
    blobs = bundle.blobs()
    for ref in bundle.signatures:
        if ref.envelope.digest in {blob.digest for blob in bundle.manifest.blobs}:
            raise DuplicateError(f"blob {ref.envelope.digest} is a file and a signature")
    if bundle.size_bytes > MAX_BUNDLE_BYTES:
        raise BundleLimitError(
            f"a bundle is at most {MAX_BUNDLE_BYTES} bytes, got {bundle.size_bytes}"
        )
    for blob in blobs:
        size_bytes = bundle.source.size_of(blob.digest)
        if size_bytes != blob.size_bytes:
            raise DigestError(
                f"blob {blob.digest} must have {blob.size_bytes} bytes, got {size_bytes}",
                digest=blob.digest,
            )
