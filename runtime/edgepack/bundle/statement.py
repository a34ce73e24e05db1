"""What is signed about a bundle: an in-toto Statement v1 with one subject, the bundle.

The predicate says under which name and version it is released, and in which sequence.
"""

from edgepack.bundle.contract_rules import is_name, is_version
from edgepack.bundle.descriptor import is_digest
from edgepack.bundle.documents import parse_object
from edgepack.bundle.errors import ManifestError
from edgepack.trust import strict_json
from edgepack.trust.dsse import MAX_ENVELOPE_BYTES
from edgepack.trust.strict_json import JsonValue
from edgepack.trust.values import dataclass

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:edgepack:release:v1"
MAX_SEQUENCE = 2**53 - 1  # what every JSON reader can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A release.

    Attributes:
        name: The model's name.
        version: Its version, for people.
        sequence: The time of signing in seconds since 1970; of two releases of a model the one
            with the larger sequence is the newer.
        digest: The bundle digest.
    """

    name: str
    version: str
    sequence: int
    digest: str


def parse_statement(data: bytes) -> Statement:
    """Read a statement.

    Raises:
        BundleDocumentError, OversizedDocumentError: It is not such a JSON document.
        ManifestError: It is another kind of statement, or breaks a rule.
    """
    document = parse_object(data, what="statement", max_bytes=MAX_ENVELOPE_BYTES)
    kind = (document.get("_type"), document.get("predicateType"))
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ManifestError(
            f"statement must be {STATEMENT_TYPE} with {PREDICATE_TYPE}, got {repr(kind)[:160]}"
        )
    subject_name, digest = _subject(document.get("subject"))
    predicate = document.get("predicate")
    fields = predicate if isinstance(predicate, dict) else {}
    name, version, sequence = fields.get("name"), fields.get("version"), fields.get("sequence")
    if not isinstance(name, str) or not is_name(name) or name != subject_name:
        raise ManifestError(
            f"statement: name must be the subject's, a model's name, got {repr(name)[:80]}"
        )
    if not isinstance(version, str) or not is_version(version):
        raise ManifestError(f"statement: version must be SemVer, got {repr(version)[:80]}")
    if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
        raise ManifestError(f"statement: sequence must be seconds, got {repr(sequence)[:40]}")
    return Statement(name=name, version=version, sequence=sequence, digest=digest)


def render_statement(statement: Statement) -> bytes:
    """Write a statement, canonically."""
    return strict_json.render(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {
                    "name": statement.name,
                    "digest": {"sha256": statement.digest.removeprefix("sha256:")},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "name": statement.name,
                "version": statement.version,
                "sequence": statement.sequence,
            },
        }
    )


def _subject(value: JsonValue) -> tuple[str, str]:
    subject = value[0] if isinstance(value, list) and len(value) == 1 else None
    if isinstance(subject, dict):
        name, digests = subject.get("name"), subject.get("digest")
        sha256 = digests.get("sha256") if isinstance(digests, dict) else None
        digest = f"sha256:{sha256}"
        if isinstance(name, str) and is_digest(digest):
            return name, digest
    raise ManifestError("statement: subject must be one name with its sha256 digest")
