"""Asks a server about every rule."""

from collections.abc import Iterator

from edgepack.fleet.conformance import (
    binary_rules,
    error_rules,
    open_inference_rules,
    tensorflow_rules,
)
from edgepack.fleet.conformance.peer import Peer
from edgepack.fleet.conformance.rules import (
    BrokenError,
    NotApplicableError,
    Outcome,
    Result,
    Rule,
)
from edgepack.fleet.conformance.subject import TEXT, Subject, learn
from edgepack.fleet.errors import TargetError
from edgepack.wire.errors import TransferError


def check(
    peer: Peer, model: str, *, tensorflow: bool = False, text: str = TEXT
) -> Iterator[Result]:
    """Ask about each rule in turn.

    Args:
        peer: The server.
        model: One of its models.
        tensorflow: Whether TensorFlow Serving's rules count as well.
        text: What inputs of text are given.

    Raises:
        TargetError: The server says nothing of such a model.
        TransferError: The server cannot be reached.
    """
    subject = learn(peer, model, text=text)
    if subject is None:
        raise TargetError(
            f"{peer.url} must describe the inputs of model {model!r} at /v2/models/{model}"
        )
    rules = [*open_inference_rules.RULES, *error_rules.RULES, *binary_rules.RULES]
    if tensorflow:
        rules += tensorflow_rules.RULES
    for rule in rules:
        yield _result(rule, subject)


def _result(rule: Rule, subject: Subject) -> Result:
    outcome, detail = Outcome.PASS, ""
    try:
        rule.check(subject)
    except (BrokenError, TransferError) as exc:
        outcome, detail = Outcome.FAIL, str(exc)
    except NotApplicableError as exc:
        outcome, detail = Outcome.SKIP, str(exc)
    return Result(
        name=rule.name, says=rule.says, source=rule.source, outcome=outcome, detail=detail
    )
