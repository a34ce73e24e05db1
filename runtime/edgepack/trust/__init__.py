"""Keys, roles, the root of trust and signed envelopes.

What is signed elsewhere (a release of a bundle, a desired state) has a payload type of its own,
listed in `edgepack.trust.payload_types`. Nothing here imports `cryptography` before a key is used:
a device that only restarts a model never pays for it.
"""

from typing import TYPE_CHECKING

from edgepack.trust.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from edgepack.trust import dsse
    from edgepack.trust.errors import (
        DocumentError,
        DocumentLimitError,
        EdgepackError,
        KeyFileError,
        RootError,
        SignatureError,
        TrustError,
    )
    from edgepack.trust.generate import ROOT_FILE, GeneratedKeys, key_path, keygen
    from edgepack.trust.keys import PrivateKey, PublicKey
    from edgepack.trust.payload_types import (
        CHECKPOINT_PAYLOAD_TYPE,
        DESIRED_PAYLOAD_TYPE,
        EVENT_PAYLOAD_TYPE,
        ROOT_PAYLOAD_TYPE,
        STATEMENT_PAYLOAD_TYPE,
        WHEELHOUSE_PAYLOAD_TYPE,
    )
    from edgepack.trust.root import DEPLOY, RELEASE, ROOT, Role, Root, sign_root
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "dsse": ("dsse",),
            "errors": (
                "DocumentError",
                "DocumentLimitError",
                "EdgepackError",
                "KeyFileError",
                "RootError",
                "SignatureError",
                "TrustError",
            ),
            "generate": (
                "ROOT_FILE",
                "GeneratedKeys",
                "key_path",
                "keygen",
            ),
            "keys": (
                "PrivateKey",
                "PublicKey",
            ),
            "payload_types": (
                "CHECKPOINT_PAYLOAD_TYPE",
                "DESIRED_PAYLOAD_TYPE",
                "EVENT_PAYLOAD_TYPE",
                "ROOT_PAYLOAD_TYPE",
                "STATEMENT_PAYLOAD_TYPE",
                "WHEELHOUSE_PAYLOAD_TYPE",
            ),
            "root": (
                "DEPLOY",
                "RELEASE",
                "ROOT",
                "Role",
                "Root",
                "sign_root",
            ),
        },
    )

__all__ = [
    "CHECKPOINT_PAYLOAD_TYPE",
    "DEPLOY",
    "DESIRED_PAYLOAD_TYPE",
    "EVENT_PAYLOAD_TYPE",
    "RELEASE",
    "ROOT",
    "ROOT_FILE",
    "ROOT_PAYLOAD_TYPE",
    "STATEMENT_PAYLOAD_TYPE",
    "WHEELHOUSE_PAYLOAD_TYPE",
    "DocumentError",
    "DocumentLimitError",
    "EdgepackError",
    "GeneratedKeys",
    "KeyFileError",
    "PrivateKey",
    "PublicKey",
    "Role",
    "Root",
    "RootError",
    "SignatureError",
    "TrustError",
    "dsse",
    "key_path",
    "keygen",
    "sign_root",
]
