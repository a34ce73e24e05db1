"""Why a bundle was refused: one class for each kind of refusal.

BundleError                        exit code 4; `reason` is a stable word for machines
├── BundleFileError                file                no such file, or not a regular file
├── ArchiveError                   archive             the tar is not one of ours
│   ├── NotCanonicalError          not_canonical       a bit differs from the one right form
│   ├── TraversalError             traversal           a name or path leads out
│   ├── LinkError                  link                a link, device or other special member
│   ├── DuplicateError             duplicate           a member, path or blob stands twice
│   ├── TruncatedError             truncated           the file ends too early
│   └── TrailingBytesError         trailing_bytes      the file goes on after its end
├── BundleLimitError               too_large           larger or more than is looked at
├── DigestError                    wrong_digest        bytes that their digest does not fit
├── MissingBlobError               missing_blob        a blob is named but is not there
├── ExtraBlobError                 extra_blob          a blob is there but nothing names it
├── BundleDocumentError            bad_document        a JSON document is malformed
│   └── OversizedDocumentError     oversized_document  … too large or nested too deep
├── ManifestError                  bad_manifest        a manifest, index or path breaks a rule
├── ContractError                  bad_contract        the contract breaks a rule
│   └── UnsupportedError           unsupported         it needs what this reader does not know
├── UntrustedBundleError           untrusted           (exit code 5; a TrustError too)
│   ├── UnsignedError              unsigned            nobody has signed it
│   ├── WrongKeyError              wrong_key           not signed by keys that the root trusts
│   ├── ForeignSignatureError      foreign_signature   the signature is another bundle's
│   └── StatementMismatchError     statement_mismatch  signed under another name or version
├── DestinationError               destination         (2) where to write is taken
└── BundleWriteError               disk                (9) the disk refused
"""

from typing import ClassVar

from edgepack.trust.errors import EdgepackError, TrustError


class BundleError(EdgepackError):
    """A bundle was refused."""

    exit_code = 4
    reason: ClassVar[str] = "bad_bundle"


class BundleFileError(BundleError):
    """There is no such file, or it is not a regular one."""

    reason = "file"


class ArchiveError(BundleError):
    """The archive is not a bundle's archive."""

    reason = "archive"


class NotCanonicalError(ArchiveError):
    """Some bit of the file differs from the one form that its content can have."""

    reason = "not_canonical"


class TraversalError(ArchiveError):
    """A name or path leads out of the bundle."""

    reason = "traversal"


class LinkError(ArchiveError):
    """A member is a link, a device or something else that is not a file."""

    reason = "link"


class DuplicateError(ArchiveError):
    """A member, a path or a blob stands twice."""

    reason = "duplicate"


class TruncatedError(ArchiveError):
    """The file ends before its content does."""

    reason = "truncated"


class TrailingBytesError(ArchiveError):
    """The file goes on after the end of its content."""

    reason = "trailing_bytes"


class BundleLimitError(BundleError):
    """Something is larger, or there is more of it, than a bundle may have."""

    reason = "too_large"


class DigestError(BundleError):
    """Bytes whose SHA-256 is not the one that they are named by."""

    reason = "wrong_digest"

    def __init__(self, message: str, *, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


class MissingBlobError(BundleError):
    """A blob that is named is not there."""

    reason = "missing_blob"

    def __init__(self, message: str, *, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


class ExtraBlobError(BundleError):
    """A blob is there that nothing names."""

    reason = "extra_blob"


class BundleDocumentError(BundleError):
    """A JSON document in the bundle is malformed."""

    reason = "bad_document"


class OversizedDocumentError(BundleDocumentError):
    """A JSON document in the bundle is too large or nested too deep."""

    reason = "oversized_document"


class ManifestError(BundleError):
    """A manifest, the index, or a path in them breaks a rule of the format."""

    reason = "bad_manifest"


class ContractError(BundleError):
    """The contract breaks a rule of the format.

    Attributes:
        problems: All that was found, each in a few words.
    """

    reason = "bad_contract"

    def __init__(self, *problems: str) -> None:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        super().__init__(f"contract: {shown}{more}")
        self.problems = problems


class UnsupportedError(ContractError):
    """The contract needs a format or a feature that this reader does not know."""

    reason = "unsupported"


class UntrustedBundleError(BundleError, TrustError):
    """The bundle is whole, but the root of trust does not vouch for it."""

    exit_code = 5
    reason = "untrusted"


class UnsignedError(UntrustedBundleError):
    """Nobody has signed the bundle."""

    reason = "unsigned"


class WrongKeyError(UntrustedBundleError):
    """Too few of the keys that the root trusts have signed the bundle."""

    reason = "wrong_key"


class ForeignSignatureError(UntrustedBundleError):
    """A signature belongs to another bundle."""

    reason = "foreign_signature"


class StatementMismatchError(UntrustedBundleError):
    """What was signed has another name or version than the contract."""

    reason = "statement_mismatch"


class DestinationError(BundleError):
    """Where something was to be written there is something already."""

    exit_code = 2
    reason = "destination"


class BundleWriteError(BundleError):
    """The disk refused to write."""

    exit_code = 9
    reason = "disk"
