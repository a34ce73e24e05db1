"""A rule of a protocol, and how one is found kept or broken."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from edgepack.fleet.conformance.subject import Subject

# The documents that rules are taken from.
OIP = "Open Inference Protocol 2, HTTP/REST"
BINARY = "binary_tensor_data extension (KServe, Triton)"
TENSORFLOW = "TensorFlow Serving RESTful API"


class Outcome(StrEnum):
    """What became of a rule."""

    PASS = "pass"  # noqa: S105  (not a password)
    FAIL = "fail"
    SKIP = "skip"


class BrokenError(Exception):
    """The server does not keep the rule; the message says what it did instead."""


class NotApplicableError(Exception):
    """The rule says nothing about this server or model; the message says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: A short name that does not change.
        says: What a server must do.
        source: The document, and the section in it.
        check: Finds out, by asking; raises BrokenError or NotApplicableError.
    """

    name: str
    says: str
    source: str
    check: Callable[[Subject], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A rule and what became of it; `detail` says what was found, empty for a pass."""

    name: str
    says: str
    source: str
    outcome: Outcome
    detail: str = ""


def must(condition: object, found: str) -> None:
    """Break the rule unless the condition holds.

    Raises:
        BrokenError: It does not.
    """
    if not condition:
        raise BrokenError(found)
