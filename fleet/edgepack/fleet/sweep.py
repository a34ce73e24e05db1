"""Taking blobs off the broker that nothing refers to any more.

The rule is conservative. Only blobs of the bundles that a command has just replaced or removed are
looked at, and only those that no desired state under the prefix refers to are cleared, whoever
signed it. A device that has the bundle on disk needs no blobs to roll back to it.
"""

from collections.abc import Iterable

import aiomqtt

from edgepack.bundle import BundleError, Descriptor, blobs_of_manifest, check_blob
from edgepack.fleet.blobs import clear_blobs, read_blob
from edgepack.fleet.devices import read_all_desired
from edgepack.trust import DESIRED_PAYLOAD_TYPE, EdgepackError, dsse
from edgepack.wire.desired import DesiredModel, parse_desired


async def sweep(client: aiomqtt.Client, prefix: str, gone: Iterable[DesiredModel]) -> int:
    """Clear the blobs of bundles that are no longer wanted.

    Args:
        client: A connection that nobody else reads from.
        prefix: Topic prefix.
        gone: Entries of desired states that were replaced or removed.

    Returns:
        How many bytes were cleared.
    """
    candidates: set[Descriptor] = set()
    for model in {model.digest: model for model in gone if model.manifest_size_bytes}.values():
        candidates |= await _blobs_of(client, prefix, model)
    if not candidates:
        return 0
    wanted = await _wanted(client, prefix)
    if wanted is None:
        return 0
    unwanted = {blob for blob in candidates if blob.digest not in wanted}
    await clear_blobs(client, prefix, sorted(unwanted))
    return sum(blob.size_bytes for blob in unwanted)


async def _wanted(client: aiomqtt.Client, prefix: str) -> set[str] | None:
    """Digests that some desired state refers to; None when one of them cannot be read."""
    wanted: set[str] = set()
    known: dict[str, DesiredModel] = {}
    for envelope in (await read_all_desired(client, prefix)).values():
        try:
            # Unverified on purpose: a forged one can only keep more.
            desired = parse_desired(dsse.unverified_payload(envelope, DESIRED_PAYLOAD_TYPE))
        except EdgepackError:
            return None
        known |= {model.digest: model for model in desired.models if "mqtt:" in model.sources}
    for model in known.values():
        wanted |= {blob.digest for blob in await _blobs_of(client, prefix, model)}
    return wanted


async def _blobs_of(client: aiomqtt.Client, prefix: str, model: DesiredModel) -> set[Descriptor]:
    """Every blob of a bundle that can be found by the manifests on the broker."""
    manifests = [Descriptor(digest=model.digest, size_bytes=model.manifest_size_bytes)]
    manifests += [
        Descriptor(digest=ref.digest, size_bytes=ref.size_bytes) for ref in model.signatures
    ]
    found = set(manifests)
    for manifest in manifests:
        data = await read_blob(client, prefix, manifest)
        try:
            found |= set(blobs_of_manifest(check_blob(manifest, data or b"")))
        except BundleError:
            continue  # gone, or not what it was: then no device can fetch that bundle either
    return found
