"""Decide whether a bundle may be installed: the release role has signed it, under its own name.

How signatures count: each envelope signs one statement. Signatures over the same statement count
together, in one envelope or spread over several signature manifests, and a key counts once.
Statements that differ (another sequence) are counted apart. Of the statements that reach the
threshold the one with the largest sequence is taken.
"""

from edgepack.bundle.blobs import read_verified
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.errors import (
    BundleError,
    ForeignSignatureError,
    StatementMismatchError,
    UnsignedError,
    UntrustedBundleError,
    WrongKeyError,
)
from edgepack.bundle.statement import Statement, parse_statement
from edgepack.trust import (
    RELEASE,
    STATEMENT_PAYLOAD_TYPE,
    DocumentError,
    Root,
    SignatureError,
    dsse,
)


def verify_bundle(bundle: Bundle, root: Root) -> Statement:
    """Verify that the release role of a root has signed a bundle.

    Returns:
        The statement that was signed: name, version, sequence and digest.

    Raises:
        UnsignedError: Nobody has signed it.
        WrongKeyError: Too few trusted keys have signed it, or they may not sign this model.
        ForeignSignatureError: Trusted keys have signed another bundle.
        StatementMismatchError: Trusted keys have signed it under another name or version.
        BundleError: The bundle's bytes are gone or have changed since it was opened.
    """
    if not bundle.signatures:
        raise UnsignedError(f"bundle {bundle.digest} is not signed")
    accepted: list[Statement] = []
    statements, refusals = _by_statement(bundle)
    for payload, envelopes in statements.items():
        try:
            accepted.append(_verified(bundle, root, payload, envelopes))
        except UntrustedBundleError as exc:
            refusals.append(exc)
    if accepted:
        return max(accepted, key=lambda statement: statement.sequence)
    # What trusted keys have signed tells more than what strangers have.
    raise min(refusals, key=lambda refusal: isinstance(refusal, WrongKeyError))


def _by_statement(
    bundle: Bundle,
) -> tuple[dict[bytes, list[dsse.Envelope]], list[UntrustedBundleError]]:
    found: dict[bytes, list[dsse.Envelope]] = {}
    refusals: list[UntrustedBundleError] = []
    for ref in bundle.signatures:
        try:
            envelope = dsse.parse(
                read_verified(bundle.source, ref.envelope), STATEMENT_PAYLOAD_TYPE
            )
        except DocumentError as exc:
            # Anybody may add one; it must not keep those that are good from counting.
            refusals.append(WrongKeyError(f"signature {ref.manifest.digest}: {exc}"))
        else:
            found.setdefault(envelope.payload, []).append(envelope)
    return found, refusals


def _verified(
    bundle: Bundle, root: Root, payload: bytes, envelopes: list[dsse.Envelope]
) -> Statement:
    keys = root.role_keys(RELEASE)
    signed = frozenset[str]().union(*(dsse.signers(envelope, keys) for envelope in envelopes))
    together = dsse.Envelope(
        payload_type=STATEMENT_PAYLOAD_TYPE,
        payload=payload,
        signatures=tuple(item for envelope in envelopes for item in envelope.signatures),
    )
    try:
        dsse.require_threshold(together, signed, keys, root.roles[RELEASE].threshold)
    except SignatureError as exc:
        raise WrongKeyError(f"bundle {bundle.digest}: role {RELEASE}: {exc}") from exc
    try:
        statement = parse_statement(payload)
    except BundleError as exc:
        raise StatementMismatchError(f"bundle {bundle.digest}: {exc}") from exc
    if statement.digest != bundle.digest:
        raise ForeignSignatureError(
            f"the signature is for bundle {statement.digest}, this one is {bundle.digest}"
        )
    expected = (bundle.contract.name, bundle.contract.version)
    if (statement.name, statement.version) != expected:
        raise StatementMismatchError(
            f"the signature is for {statement.name} {statement.version}, "
            f"the contract says {expected[0]} {expected[1]}"
        )
    try:
        root.check_model(RELEASE, statement.name)
    except SignatureError as exc:
        raise WrongKeyError(f"bundle {bundle.digest}: {exc}") from exc
    return statement
