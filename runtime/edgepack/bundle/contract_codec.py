"""The contract as JSON: read strictly, written canonically.

What a contract must obey is in `edgepack.bundle.contract_rules`.
"""

from dataclasses import replace

from edgepack.bundle.contract import FORMAT_MAJOR, KNOWN_FEATURES, Contract
from edgepack.bundle.contract_rules import problems_of
from edgepack.bundle.documents import parse_object
from edgepack.bundle.errors import ContractError, OversizedDocumentError, UnsupportedError
from edgepack.bundle.limits import MAX_CONTRACT_BYTES
from edgepack.trust import strict_json
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue


def parse_contract(data: bytes) -> Contract:
    """Read a contract; keys that this reader does not know are ignored.

    Raises:
        OversizedDocumentError, BundleDocumentError: It is not such a JSON document.
        UnsupportedError: It has another major format, or requires an unknown feature.
        ContractError: It breaks rules; the message and `.problems` name all of them.
    """
    document = parse_object(data, what="contract", max_bytes=MAX_CONTRACT_BYTES)
    _check_supported(document)
    try:
        contract = decode(Contract, document, what="contract", ignore_unknown=True)
    except DocumentError as exc:
        raise ContractError(str(exc).removeprefix("contract: ")) from exc
    problems = problems_of(contract)
    if problems:
        raise ContractError(*problems)
    return contract


def render_contract(contract: Contract) -> bytes:
    """Write a contract; equal contracts give the same bytes.

    Raises:
        ContractError: It breaks rules, so that no reader would take it.
        OversizedDocumentError: It is larger than a reader would look at.
    """
    problems = problems_of(contract)
    if problems:
        raise ContractError(*problems)
    if contract.pre:
        contract = replace(contract, pre=_canonical(contract.pre))
    data = strict_json.render(encode(contract))
    if len(data) > MAX_CONTRACT_BYTES:
        raise OversizedDocumentError(
            f"contract must be at most {MAX_CONTRACT_BYTES} bytes, got {len(data)}"
        )
    # Read back: 1 and 1.0 are equal to Python and must be written alike.
    return strict_json.render(encode(parse_contract(data)))


def _canonical(pre: tuple[dict[str, object], ...]) -> tuple[dict[str, object], ...]:
    """The same steps, each value of the type that its parameter has: 1.0 where 1 was written."""
    from edgepack.bundle.pre_codec import parse_steps, render_steps  # most models have no steps

    whole = render_steps(parse_steps(pre))
    return tuple(
        {key: written[key] for key in given if key in written}
        for given, written in zip(pre, whole, strict=True)
    )


def _check_supported(document: dict[str, JsonValue]) -> None:
    # Before anything else is looked at: another major format may differ in everything but this.
    written = document.get("format")
    if isinstance(written, str) and written.split(".", 1)[0] != str(FORMAT_MAJOR):
        raise UnsupportedError(f"format must be {FORMAT_MAJOR}.x, got {written[:20]!r}")
    requires = document.get("requires", [])
    if isinstance(requires, list):
        unknown = [item for item in requires if isinstance(item, str)]
        unknown = [item for item in unknown if item not in KNOWN_FEATURES]
        if unknown:
            raise UnsupportedError(
                f"requires {', '.join(repr(item[:64]) for item in unknown[:5])}, "
                "which this version of edgepack does not know"
            )
