"""How much of a caller the server puts up with."""

from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one server.

    Attributes:
        max_body_bytes: Largest body of a request.
        max_header_bytes: Largest request line with headers.
        max_connections: Open connections; one more is told so and closed.
        header_s: Seconds for a request's headers, from its first byte (or the connection).
        body_s: Seconds for a body, and as many again for each `body_rate` bytes that came.
        body_rate: See `body_s`.
        idle_s: Seconds for which a connection without a request stays open.
        write_s: Seconds for which a caller may take nothing of its answer.
        linger_s: Seconds for which what a refused caller still sends is read, and thrown away, so
            that it sees the answer instead of a reset.
        sweep_s: Seconds between two looks at who is late; there are none without connections.
    """

    max_body_bytes: int
    max_connections: int
    max_header_bytes: int = 16 * 1024
    header_s: float = 10.0
    body_s: float = 10.0
    body_rate: int = 100_000
    idle_s: float = 75.0
    write_s: float = 30.0
    linger_s: float = 2.0
    sweep_s: float = 1.0

    @property
    def max_held_bytes(self) -> int:
        """What the bodies of all connections may take together."""
        return 4 * self.max_body_bytes
