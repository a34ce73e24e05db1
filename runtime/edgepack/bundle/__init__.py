"""The bundle: one file that carries a model, its contract and its proof.

Opening, signing, verifying and writing. Nothing here runs a model, talks to a network or knows
what a device is. The format is specified in docs/bundle-format.md.
"""

from typing import TYPE_CHECKING

from edgepack.bundle import media_types
from edgepack.trust.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from edgepack.bundle.archive import open_bundle
    from edgepack.bundle.atomic_file import write_atomically
    from edgepack.bundle.bundle import Bundle, SignatureRef
    from edgepack.bundle.contract import Contract
    from edgepack.bundle.contract_codec import parse_contract, render_contract
    from edgepack.bundle.contract_rules import is_name, is_version
    from edgepack.bundle.descriptor import Descriptor, check_blob, describe, digest_of, is_digest
    from edgepack.bundle.errors import BundleError, UntrustedBundleError
    from edgepack.bundle.extract import extract_bundle
    from edgepack.bundle.foreign_layout import import_layout
    from edgepack.bundle.layout import open_layout
    from edgepack.bundle.manifest import Layer, Manifest, blobs_of_manifest
    from edgepack.bundle.pack import Part, bundle_filename, write_bundle
    from edgepack.bundle.sign import sign_bundle, signing_sequence
    from edgepack.bundle.statement import Statement
    from edgepack.bundle.verify import verify_bundle
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "archive": ("open_bundle",),
            "atomic_file": ("write_atomically",),
            "bundle": (
                "Bundle",
                "SignatureRef",
            ),
            "contract": ("Contract",),
            "contract_codec": (
                "parse_contract",
                "render_contract",
            ),
            "contract_rules": (
                "is_name",
                "is_version",
            ),
            "descriptor": (
                "Descriptor",
                "check_blob",
                "describe",
                "digest_of",
                "is_digest",
            ),
            "errors": (
                "BundleError",
                "UntrustedBundleError",
            ),
            "extract": ("extract_bundle",),
            "foreign_layout": ("import_layout",),
            "layout": ("open_layout",),
            "manifest": (
                "Layer",
                "Manifest",
                "blobs_of_manifest",
            ),
            "pack": (
                "Part",
                "bundle_filename",
                "write_bundle",
            ),
            "sign": (
                "sign_bundle",
                "signing_sequence",
            ),
            "statement": ("Statement",),
            "verify": ("verify_bundle",),
        },
    )

__all__ = [
    "Bundle",
    "BundleError",
    "Contract",
    "Descriptor",
    "Layer",
    "Manifest",
    "Part",
    "SignatureRef",
    "Statement",
    "UntrustedBundleError",
    "blobs_of_manifest",
    "bundle_filename",
    "check_blob",
    "describe",
    "digest_of",
    "extract_bundle",
    "import_layout",
    "is_digest",
    "is_name",
    "is_version",
    "media_types",
    "open_bundle",
    "open_layout",
    "parse_contract",
    "render_contract",
    "sign_bundle",
    "signing_sequence",
    "verify_bundle",
    "write_atomically",
    "write_bundle",
]
