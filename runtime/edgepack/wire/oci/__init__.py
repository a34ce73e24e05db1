"""Registries: the OCI distribution API, as far as bundles need it.

Knows manifests and blobs by digest, not what is in them: that is `edgepack.bundle`.
"""

from edgepack.wire.oci.reference import Reference, parse_reference
from edgepack.wire.oci.registry import Registry

__all__ = ["Reference", "Registry", "parse_reference"]
