"""Getting a bundle onto this device, by the sources that the desired state names, in order.

Small documents come first, and nothing else before `preflight` says that the bundle can be
installed here. What arrives is NOT trusted yet: `verifying` comes next.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.device_facts import Device
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.preflight import Need, Refusal, judge_contract, judge_space
from edgepack.agent.install.room import Room
from edgepack.agent.install.sources.find import Sources
from edgepack.agent.install.sources.source import Source
from edgepack.bundle import BundleError, Contract, blobs_of_manifest, parse_contract
from edgepack.bundle.archive import list_archive
from edgepack.bundle.blobs import ArchiveBlobs, open_regular, read_verified
from edgepack.bundle.documents import check_document_size
from edgepack.bundle.errors import UnsupportedError
from edgepack.bundle.limits import MAX_MANIFEST_BYTES
from edgepack.bundle.manifest import parse_manifest
from edgepack.trust.values import dataclass
from edgepack.wire.desired import BlobRef, DesiredModel

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0
_PROGRESS_BYTES = 64 * 1024
# One source's fault, which another source need not share.
_OF_THE_SOURCE = frozenset({"bundle_invalid", "wrong_bundle"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a source gave.

    Attributes:
        staging: An OCI layout of this bundle, whole, its digests right.
        signatures: The signature manifests that came with it.
    """

    staging: Path
    signatures: tuple[str, ...]


class Fetcher:
    """Fetches bundles into the staging folder.

    Args:
        blobs: The store.
        sources: Opens sources.
        device: What the device has.
        jitter_s: The start is put off by a part of this, in seconds.
        name: The device's id, which decides the part.
    """

    def __init__(
        self,
        blobs: BlobStore,
        sources: Sources,
        device: Device,
        *,
        jitter_s: float = 0.0,
        name: str = "",
    ) -> None:
        self._blobs = blobs
        self._sources = sources
        self._device = device
        self._jitter_s = jitter_s
        self._name = name
        self._begun: set[str] = set()
        self._room = Room()

    async def fetch(self, model: DesiredModel) -> Fetched:
        """Fetch one bundle, from the first source that gives it.

        Raises:
            FetchError: No source gives it now; try again later. What came is kept.
            RejectedError: It cannot be installed here, or what sources give is not what was
                asked for.
            StoreError: The disk does not take it.
        """
        self._check_size(model.archive_size_bytes)
        if not model.sources:
            raise RejectedError("not_on_disk", f"{model.digest} is not on this device")
        await self._spread(model)
        landing = self._blobs.landing_for(model.digest)
        try:
            while True:
                before_bytes = landing.written_bytes
                try:
                    return await self._from_any(model, landing)
                except FetchError:
                    # over a bad line every connection gets some of it
                    if landing.written_bytes - before_bytes < _PROGRESS_BYTES:
                        raise
                await asyncio.sleep(_AGAIN_S)
        finally:
            landing.give_up()
            self._room.let_go(model.digest)

    async def check_file(self, path: Path) -> None:
        """Look whether a local file can be installed here, before it is unpacked.

        Raises:
            RejectedError: It cannot, or is no bundle.
            StoreError: The disk does not tell how full it is.
        """
        try:
            contract, need = await asyncio.to_thread(_looked_at, path)
        except BundleError as exc:
            raise RejectedError("bundle_invalid", str(exc)) from exc
        _refuse(judge_contract(contract, await self._device.facts(contract)))
        space = self._device.space()
        _refuse(judge_space(need, space))
        _refuse(judge_space(self._room.with_others("", need), space))

    async def _spread(self, model: DesiredModel) -> None:
        """Put the first try off, so that a fleet does not come all at once."""
        if model.digest in self._begun or all(text.startswith("file:") for text in model.sources):
            return
        delay_s = start_delay_s(self._jitter_s, self._name, model.digest)
        if delay_s:
            logger.info("fetch.waiting model=%s seconds=%.1f", model.name, delay_s)
            await asyncio.sleep(delay_s)
        self._begun.add(model.digest)

    async def _from_any(self, model: DesiredModel, landing: Landing) -> Fetched:
        problems: list[FetchError | RejectedError] = []
        for text in model.sources:
            try:
                source = self._sources.open(text, model)
                try:
                    return await self._from_one(source, model, landing)
                finally:
                    source.close()
            except FetchError as exc:
                problems.append(exc)
            except RejectedError as exc:
                if exc.reason not in _OF_THE_SOURCE:
                    raise
                problems.append(exc)
        away = [str(exc) for exc in problems if isinstance(exc, FetchError)]
        if not away:
            raise problems[0]
        raise FetchError("; ".join(map(str, problems)))

    async def _from_one(self, source: Source, model: DesiredModel, landing: Landing) -> Fetched:
        found = await source.describe(landing)
        manifests = (found.manifest, *found.signatures)
        for ref in manifests:
            if ref.size_bytes > MAX_MANIFEST_BYTES:
                raise RejectedError(
                    "too_large",
                    f"manifest must be at most {MAX_MANIFEST_BYTES} bytes, got {ref.size_bytes}",
                )
        await self._get(source, [found.manifest], landing)
        try:
            manifest = parse_manifest(landing.read(found.manifest))
        except BundleError as exc:
            raise RejectedError("bundle_invalid", str(exc)) from exc
        model_blobs = [
            BlobRef(digest=blob.digest, size_bytes=blob.size_bytes) for blob in manifest.blobs
        ]
        self._check_size(sum(ref.size_bytes for ref in model_blobs))
        contract = BlobRef(
            digest=manifest.contract.blob.digest, size_bytes=manifest.contract.blob.size_bytes
        )
        await self._get(source, [contract], landing)
        await self._preflight(model, parsed_contract(landing.read(contract)), model_blobs, landing)
        await self._get(source, found.signatures, landing)
        named = {ref.digest: ref for ref in (*manifests, *model_blobs)}
        for ref in found.signatures:
            try:
                blobs = blobs_of_manifest(landing.read(ref))
            except BundleError as exc:
                raise RejectedError("bundle_invalid", str(exc)) from exc
            for blob in blobs:
                named[blob.digest] = BlobRef(digest=blob.digest, size_bytes=blob.size_bytes)
        self._check_size(sum(ref.size_bytes for ref in named.values()))
        await self._get(source, sorted(named.values(), key=lambda ref: ref.size_bytes), landing)
        staging = self._blobs.staging_for(model.digest)
        landing.lay_out(named.values(), staging)
        return Fetched(staging=staging, signatures=tuple(ref.digest for ref in found.signatures))

    async def _get(self, source: Source, refs: Sequence[BlobRef], landing: Landing) -> None:
        missing = await asyncio.to_thread(_missing, refs, landing)
        if missing:
            await source.get(missing, landing)

    async def _preflight(
        self,
        model: DesiredModel,
        contract: Contract,
        blobs: Sequence[BlobRef],
        landing: Landing,
    ) -> None:
        _refuse(judge_contract(contract, await self._device.facts(contract)))
        missing = await asyncio.to_thread(_missing, blobs, landing)
        left_bytes = sum(ref.size_bytes - landing.here_bytes(ref) for ref in missing)
        need = Need(size_bytes=left_bytes, files=len(missing))
        space = self._device.space()
        _refuse(judge_space(need, space))
        crowded = judge_space(self._room.with_others(model.digest, need), space)
        if crowded is not None:  # passes when the others have come, or have failed
            raise FetchError(f"waits for room that other fetches need: {crowded.detail}")
        self._room.promise(model.digest, need, landing)

    def _check_size(self, size_bytes: int) -> None:
        largest = self._sources.max_bundle_bytes
        if size_bytes > largest:
            raise RejectedError(
                "too_large", f"bundle must be at most {largest} bytes, got {size_bytes}"
            )


def start_delay_s(jitter_s: float, device: str, digest: str) -> float:
    """When this device's turn is, in seconds: the same each time, evenly spread over devices."""
    seed = hashlib.sha256(f"{device}\0{digest}".encode()).digest()
    return jitter_s * int.from_bytes(seed[:8], "big") / 2**64


def parsed_contract(data: bytes) -> Contract:
    """Read a contract.

    Raises:
        RejectedError: It is none, or needs what this agent does not know.
    """
    try:
        return parse_contract(data)
    except UnsupportedError as exc:
        raise RejectedError("unsupported", str(exc)) from exc
    except BundleError as exc:
        raise RejectedError("bundle_invalid", str(exc)) from exc


def _looked_at(path: Path) -> tuple[Contract, Need]:
    """What a file's contract says, and what unpacking all of it takes."""
    with open_regular(path) as (file, size_bytes):
        listing = list_archive(file, size_bytes, path.name)
    blobs = ArchiveBlobs(path, listing.regions)
    check_document_size("manifest", listing.model, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(read_verified(blobs, listing.model))
    contract = parsed_contract(read_verified(blobs, manifest.contract.blob))
    return contract, Need(size_bytes=size_bytes, files=len(listing.regions))


def _missing(refs: Sequence[BlobRef], landing: Landing) -> list[BlobRef]:
    return [ref for ref in refs if not landing.has(ref)]


def _refuse(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RejectedError(refusal.reason, refusal.detail)
