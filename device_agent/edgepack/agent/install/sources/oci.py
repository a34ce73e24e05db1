"""`oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`: a bundle in a registry.

The desired state names the bundle by its digest, and by nothing else is it asked for: a tag that
was moved changes nothing here.
"""

from collections.abc import Sequence

from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.sources.source import Described
from edgepack.bundle import media_types
from edgepack.bundle.index import parse_index
from edgepack.bundle.limits import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, MAX_SIGNATURES
from edgepack.wire.desired import BlobRef, DesiredModel
from edgepack.wire.http import Credentials, HttpClient
from edgepack.wire.oci import Reference, Registry


class OciSource:
    """A bundle in a registry.

    Args:
        client: Sends requests.
        reference: Registry and repository.
        model: The wanted bundle.
        credentials: By server.
        plain_http: Registries that are spoken to without TLS.
    """

    def __init__(
        self,
        client: HttpClient,
        reference: Reference,
        model: DesiredModel,
        *,
        credentials: Credentials,
        plain_http: tuple[str, ...],
    ) -> None:
        self._client = client
        self._name = str(reference)
        self._digest_named = reference.digest
        self._model = model
        self._registry = Registry(client, reference, credentials, plain_http)

    def describe(self, landing: Landing) -> Described:
        """Fetch the manifests: of the model, and of its signatures."""
        digest = self._model.digest
        if self._digest_named not in (None, digest):
            raise RejectedError(
                "wrong_bundle", f"{self._name} must be for {digest}, got another digest"
            )
        manifest = self._manifest(digest, landing, self._model.manifest_size_bytes)
        if manifest is None:
            raise FetchError(f"{self._name} does not have {digest}")
        return Described(manifest=manifest, signatures=self._signatures(landing))

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Fetch blobs, each from where it ended."""
        for ref in refs:
            with landing.arrive(ref) as arrival:
                if arrival.left_bytes:
                    with self._registry.blob(ref.digest, offset=arrival.offset) as (found, at):
                        known_bytes = arrival.offset - at  # a registry without ranges
                        while arrival.left_bytes and (piece := found.read()):
                            arrival.write(piece[known_bytes:])
                            known_bytes = max(0, known_bytes - len(piece))
                arrival.finish()

    def stop(self) -> None:
        """Break the connection."""
        self._client.stop()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _signatures(self, landing: Landing) -> tuple[BlobRef, ...]:
        named = [
            self._manifest(ref.digest, landing, ref.size_bytes) for ref in self._model.signatures
        ]
        found = tuple(ref for ref in named if ref is not None)
        if found:
            return found
        index = self._registry.referrers(
            self._model.digest, media_types.SIGNATURE_ARTIFACT, MAX_INDEX_BYTES
        )
        entries = () if index is None else parse_index(index)
        listed = [e.blob for e in entries if e.artifact_type == media_types.SIGNATURE_ARTIFACT]
        more = [
            self._manifest(blob.digest, landing, blob.size_bytes)
            for blob in sorted(listed)[:MAX_SIGNATURES]
        ]
        return tuple(ref for ref in more if ref is not None)

    def _manifest(self, digest: str, landing: Landing, size_bytes: int) -> BlobRef | None:
        known = BlobRef(digest=digest, size_bytes=size_bytes)
        if size_bytes and landing.has(known):
            return known
        data = self._registry.manifest(digest, size_bytes or MAX_MANIFEST_BYTES)
        if data is None:
            return None
        ref = BlobRef(digest=digest, size_bytes=len(data))
        if not landing.has(ref):
            with landing.arrive(ref) as arrival:
                arrival.write(data[arrival.offset :])
                arrival.finish()
        return ref
