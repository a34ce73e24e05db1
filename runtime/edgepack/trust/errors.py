"""The root of every edgepack error, and the errors of trust.

    EdgepackError                     one line: what, got, expected; carries the exit code
    ├── DocumentError                 JSON from outside is not what it must be
    │   └── DocumentLimitError        it is larger or nested deeper than is looked at
    └── TrustError                    a key, a role or a signature was refused
        ├── KeyFileError              a key file is missing, damaged or already there
        ├── RootError                 root.json is not a valid root of trust
        └── SignatureError            an envelope is not signed as the root demands

Exit codes are documented in docs/operations.md and are part of the interface:
0 done, 1 a defect of ours, 2 usage or configuration, 3 model or data cannot be used, 4 bad bundle,
5 not trusted, 6 tolerance missed or self-test failed, 7 broker or network, 8 refused or rolled back
by a device, 9 disk, 130 interrupted.
"""

from typing import ClassVar


class EdgepackError(Exception):
    """Any error that edgepack raises on purpose; its text is one line for a person."""

    exit_code: ClassVar[int] = 1


class DocumentError(EdgepackError):
    """A document from outside is malformed or has a wrong field."""

    exit_code = 4


class DocumentLimitError(DocumentError):
    """A document is larger or nested deeper than anything of its kind may be."""


class TrustError(EdgepackError):
    """Something is not trusted."""

    exit_code = 5


class KeyFileError(TrustError):
    """A key file cannot be read, or would be overwritten."""


class RootError(TrustError):
    """The root of trust itself is not valid."""


class SignatureError(TrustError):
    """An envelope does not carry the signatures that its role demands."""
