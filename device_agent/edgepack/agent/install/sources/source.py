"""The seam between fetching and whatever gives blobs. A new source is one module and a line here.

What a source gives is NOT trusted: every blob is hashed where it lands, and the bundle's
signature is checked when all of it is there.
"""

from collections.abc import Sequence
from typing import Protocol

from edgepack.agent.install.landing import Landing
from edgepack.trust.values import dataclass
from edgepack.wire.desired import BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a source has of a bundle.

    Attributes:
        manifest: The model's manifest.
        signatures: The manifests of its signatures.
    """

    manifest: BlobRef
    signatures: tuple[BlobRef, ...]


class Source(Protocol):
    """One place that has a bundle."""

    async def describe(self, landing: Landing) -> Described:
        """Look what is there; costs little.

        Raises:
            FetchError: It does not answer now.
            RejectedError: It has another bundle, or something that is none.
            StoreError: The disk does not take it.
        """

    async def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Fetch blobs, none of which has landed yet.

        Raises:
            FetchError: It does not give all of them now; what came stays.
            RejectedError: It gives something else.
            StoreError: The disk does not take them.
        """

    def close(self) -> None:
        """End whatever still goes on."""
