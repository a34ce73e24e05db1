"""Commands to a device over `in/cmd/<op>`, and their answers.

They are not signed: whoever may write to that topic may press a button that a signed desired state
has put there, or ask for figures more often within bounds, and nothing more.
"""

import re

from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.topics import MAX_CONTROL_BYTES, check_id

INSTALL = "install"
WATCH = "watch"
MAX_WATCH_S = 900
MIN_WATCH_INTERVAL_S = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{0,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallCommand:
    """Install a version that is offered (`in/cmd/install`).

    Attributes:
        model: The model's name.
        digest: The bundle digest that `out/reported` shows as offered: what the person has seen.
        request_id: Echoed in the answer, or "".
    """

    model: str
    digest: str
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchCommand:
    """Tell figures often for a while (`in/cmd/watch`).

    Attributes:
        seconds: How long, at most `MAX_WATCH_S`.
        interval_s: Seconds between two documents, at least `MIN_WATCH_INTERVAL_S`.
        request_id: Echoed in the answer, or "".
    """

    seconds: float = 60.0
    interval_s: float = 2.0
    request_id: str = ""


def parse_watch(payload: bytes) -> WatchCommand:
    """Parse a message of `in/cmd/watch`.

    Raises:
        WireError: It is not such a command, or asks for too much.
    """
    try:
        value = parse(payload, what="command", max_bytes=MAX_CONTROL_BYTES)
        command = decode(WatchCommand, value, what="command", ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    if not 0 < command.seconds <= MAX_WATCH_S:
        raise WireError(f"command: seconds must be in 0..{MAX_WATCH_S}, got {command.seconds}")
    if not MIN_WATCH_INTERVAL_S <= command.interval_s <= command.seconds:
        raise WireError(
            f"command: interval_s must be in {MIN_WATCH_INTERVAL_S}..seconds, "
            f"got {command.interval_s}"
        )
    if not _REQUEST_ID.fullmatch(command.request_id):
        raise WireError("command: request_id must be at most 128 printable ASCII characters")
    return command


def render_watch(*, seconds: float, interval_s: float) -> bytes:
    """A message of `in/cmd/watch`."""
    return render({"seconds": seconds, "interval_s": interval_s})


def parse_install(payload: bytes) -> InstallCommand:
    """Parse a message of `in/cmd/install`.

    Raises:
        WireError: It is not such a command.
    """
    try:
        value = parse(payload, what="command", max_bytes=MAX_CONTROL_BYTES)
        command = decode(InstallCommand, value, what="command", ignore_unknown=True)
    except DocumentError as exc:
        raise WireError(str(exc)) from exc
    check_id(command.model, what="model name")
    if not _DIGEST.fullmatch(command.digest):
        raise WireError(f"command: digest must be sha256:HEX, got {command.digest[:80]!r}")
    if not _REQUEST_ID.fullmatch(command.request_id):
        raise WireError("command: request_id must be at most 128 printable ASCII characters")
    return command


def request_id_of(payload: bytes) -> str:
    """The request id of any command, as far as it has one; for answers to what cannot be parsed."""
    try:
        value = parse(payload, what="command", max_bytes=MAX_CONTROL_BYTES)
    except DocumentError:
        return ""
    request_id = value.get("request_id") if isinstance(value, dict) else None
    if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):
        return request_id
    return ""
