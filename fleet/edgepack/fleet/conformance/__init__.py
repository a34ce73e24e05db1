"""Does a server speak Open Inference Protocol as it is written? Asked of any server, over HTTP."""

from edgepack.fleet.conformance.peer import Peer
from edgepack.fleet.conformance.rules import Outcome, Result
from edgepack.fleet.conformance.suite import check

__all__ = ["Outcome", "Peer", "Result", "check"]
